"""From labelled tickets to answers: fine-tune, serve, ask with the `cohere` SDK. Run by `make demo`."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cohere
import httpx

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "examples" / "support"
RUN = ROOT / "runs" / "demo"


def say(text: str) -> None:
    """Print at once, so that our lines and those of the programs we start keep their order."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def call(*command: str, env: dict[str, str] | None = None) -> None:
    """Show a command as a person would type it, and run it."""
    say(f"\n$ {' '.join(command)}")
    subprocess.run([sys.executable, *command[1:]], cwd=ROOT, check=True, env=env)


@contextmanager
def server(env: dict[str, str]) -> Iterator[str]:
    """Start the server on a free port, give its URL, stop it at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["bentoml", "serve", "--host", "127.0.0.1", "--port", str(port)]
    say(f"\n$ {' '.join(command)}")
    process = subprocess.Popen([str(Path(sys.executable).parent / "bentoml"), *command[1:]], cwd=ROOT, env=env)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_ready(process, url)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def wait_ready(process: subprocess.Popen[bytes], url: str) -> None:
    """Wait until the server answers; give up when it has ended or after two minutes."""
    for _ in range(240):
        if process.poll() is not None:
            sys.exit("the server ended before it was ready; its last lines are above")
        try:
            if httpx.get(f"{url}/readyz", timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    sys.exit("the server was not ready within two minutes")


def ask(url: str, model: str, texts: list[str]) -> None:
    """Classify texts as any user of the hosted API would; only `base_url` differs."""
    client = cohere.Client("any key", base_url=url)
    answer = client.classify(model=model, inputs=texts)
    say("\nco.classify answers:\n")
    for item in answer.classifications:
        say(f"  {item.predictions[0]:<20} {item.confidences[0]:6.1%}  {item.input}")


def main() -> None:
    """Run the whole path."""
    began = time.monotonic()
    shutil.rmtree(RUN, ignore_errors=True)
    files = [f"examples/support/{name}.csv" for name in ("train", "test")]
    arguments = ["--train_file", files[0], "--test_file", files[1], "--output_dir", "runs/demo"]
    call("python", "-m", "training.train", "--config", "configs/classify/minilm.yaml", *arguments)
    checkpoint = "runs/demo/checkpoint"
    call("python", "-m", "training.evaluate", "--checkpoint", checkpoint, "--file", files[1], "--baseline", "tfidf")
    with tempfile.TemporaryDirectory(prefix="encore-demo-") as home:
        env = os.environ | {"ENCORE_HOME": home}
        call("python", "-m", "serving.models", "add", checkpoint, "--name", "support", env=env)
        with server(env) as url:
            ask(url, "support", (SAMPLE / "questions.txt").read_text(encoding="utf-8").splitlines())
    say(
        f"\nDone in {time.monotonic() - began:.0f} s. The run is in runs/demo: metrics.json, curves.png, confusion.png."
    )


if __name__ == "__main__":
    main()
