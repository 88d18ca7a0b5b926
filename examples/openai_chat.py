# %% [markdown]
# # Mixed intents: chat rows through OpenAI's API
#
# What someone wants of a bank or of an assistant at home, and whether a remark is toxic: 85 labels in one
# table. The rows become chats of a system, a user and an assistant message, a chat model is fine-tuned on
# them, and a fifth that was kept back measures it. Every call is that of the `openai` SDK; only `base_url`
# says that the server is your own.
#
# Open this file as a notebook in VS Code or Jupyter, or run it from top to bottom:
# `python examples/openai_chat.py`

# %%
import asyncio
import csv
import json
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

import matplotlib.pyplot as plt
from openai import AsyncOpenAI, OpenAI
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split

BASE_URL = os.environ.get("BASE_URL", "http://127.0.0.1:3000/openai/v1")
# A table with the columns text and label_text: 7,994 texts with labels of the kind of the public data sets
# mteb/banking77, mteb/amazon_massive_intent, mteb/amazon_massive_scenario and mteb/toxic_conversations_50k on
# https://huggingface.co/datasets
DATA = Path(os.environ.get("DATA", "data/intents/train.csv"))
ROWS = int(os.environ.get("ROWS", "0")) or None  # for a quick look; at least 300, as there are 85 labels
WORK = Path(os.environ.get("WORK", "runs/examples/openai_chat"))  # what this notebook writes
WORK.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The only change
#
# The hosted notebook had `OpenAI(api_key="YOUR API KEY")` here. Any key will do, unless the server asks for
# one of its own.

# %%
access = {"api_key": os.environ.get("OPENAI_API_KEY", "any key"), "base_url": BASE_URL}
client = OpenAI(**access)

# %% [markdown]
# ## Step 1: rows as chats
#
# A fifth of the rows is kept back to test on, and a tenth of the others to follow the training by.

# %%
SYSTEM = "Tell the intent of the message. Answer with its name alone."

with DATA.open(newline="", encoding="utf-8") as file:
    rows = [(row["text"], row["label_text"]) for row in csv.DictReader(file)][:ROWS]
train, test = train_test_split(rows, test_size=0.2, random_state=42)
train, valid = train_test_split(train, test_size=0.1, random_state=42)
print(f"{len(train)} rows to train on, {len(test)} to test on, {len({label for _, label in train})} labels")


def question(text):
    """What is asked."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


for name, part in (("train", train), ("valid", valid)):
    with (WORK / f"{name}.jsonl").open("w", encoding="utf-8") as file:
        for text, label in part:
            file.write(json.dumps({"messages": [*question(text), {"role": "assistant", "content": label}]}) + "\n")

# %% [markdown]
# ## Step 2: review
#
# What is wrong with a file is found before it is uploaded. The command also writes a file in which it has put that
# right; existing ones are never written over.

# %%
for old in WORK.glob("train_prepared*.jsonl"):
    old.unlink()
review = [sys.executable, "-m", "training.review", str(WORK / "train.jsonl")]
subprocess.run([*review, "--yes", "--no-split"], check=True)

# %% [markdown]
# A third of the texts are in this table twice, under what is wanted (`iot_hue_lightup`) and under what it is about
# (`iot`). The review cannot know which is meant and would leave both copies out, and some labels with them. Here
# both are right, so the rows are uploaded as they are: in training such a text counts half for each of its labels.
#
# ## Step 3: fine-tune
#
# Events tell how far the job is.

# %%
train_file = client.files.create(file=(WORK / "train.jsonl").open("rb"), purpose="fine-tune")
valid_file = client.files.create(file=(WORK / "valid.jsonl").open("rb"), purpose="fine-tune")
job = client.fine_tuning.jobs.create(
    training_file=train_file.id,
    validation_file=valid_file.id,
    model="gpt-3.5-turbo",
    suffix="intents",
    method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": "auto"}}},
    seed=1,
)
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(3)
    job = client.fine_tuning.jobs.retrieve(job.id)
    newest = client.fine_tuning.jobs.list_events(job.id, limit=1).data[0]
    print(job.status, "|", newest.message)
if job.status != "succeeded":
    raise SystemExit(f"the job {job.status}: {job.error and job.error.message}")
print(job.fine_tuned_model, job.trained_tokens, "tokens")

# %% [markdown]
# Each epoch left a checkpoint, which can be asked like the finished model.

# %%
for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id):
    metrics = checkpoint.metrics
    print(checkpoint.fine_tuned_model_checkpoint)
    print(f"  loss {metrics.full_valid_loss:.3f}, accuracy {metrics.full_valid_mean_token_accuracy:.3f}")

results = list(csv.DictReader(client.files.content(job.result_files[0]).text.splitlines()))
plt.figure()
for column in ("train_loss", "valid_loss"):
    lines = [line for line in results if line[column]]
    plt.plot([int(line["step"]) for line in lines], [float(line[column]) for line in lines], label=column)
plt.xlabel("step")
plt.legend()
plt.savefig(WORK / "loss.png")

# %% [markdown]
# ## Step 4: ask the model
#
# The message is the label; streamed, it arrives in one piece.

# %%
for chunk in client.chat.completions.create(
    model=job.fine_tuned_model, messages=question("wake me up at six tomorrow"), stream=True
):
    print(chunk.choices[0].delta.content or "", end="")
print()

# %% [markdown]
# ## Step 5: evaluate
#
# A chat has one answer, so each test row is a request of its own. The asynchronous client has sixteen of them
# under way at a time. `logprobs` gives the probability of the answer.


# %%
async def ask_all(texts):
    """The label and its probability for each text."""
    free = asyncio.Semaphore(16)
    async with AsyncOpenAI(**access) as many:

        async def ask(text):
            async with free:
                answer = await many.chat.completions.create(
                    model=job.fine_tuned_model, messages=question(text), max_tokens=1, logprobs=True, temperature=0
                )
            choice = answer.choices[0]
            return choice.message.content, math.exp(choice.logprobs.content[0].logprob)

        return await asyncio.gather(*map(ask, texts))


with ThreadPoolExecutor(1) as thread:  # a notebook's own thread has an event loop already
    answers = thread.submit(asyncio.run, ask_all([text for text, _ in test])).result()

# %%
true, predicted = [label for _, label in test], [label for label, _ in answers]
figures = {
    "accuracy": accuracy_score(true, predicted),
    "f1_weighted": f1_score(true, predicted, average="weighted"),
}
(WORK / "figures.json").write_text(json.dumps(figures))
print(f"accuracy: {figures['accuracy']:.4f}")
print(f"weighted F1: {figures['f1_weighted']:.4f}")

# %% [markdown]
# How many answers are right, if only the surest are taken and the others are left to a person:

# %%
surest = sorted(zip(answers, true, strict=True), key=lambda pair: pair[0][1], reverse=True)
right = accumulate(answer == label for (answer, _), label in surest)
plt.figure()
plt.plot(
    [count / len(surest) for count in range(1, len(surest) + 1)],
    [found / count for count, found in enumerate(right, start=1)],
)
plt.xlabel("share of the rows answered")
plt.ylabel("accuracy")
plt.savefig(WORK / "surest.png")
