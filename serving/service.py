"""The BentoML service: `bentoml serve` starts it.

Requests go straight to our application; BentoML's own layers, which cost several times as much as the application
itself, see only the probes and the metrics. The application is mounted as well, so that BentoML runs its lifespan.
"""

import importlib
import sys
from typing import Any

import bentoml
from _bentoml_sdk import Service  # pyright: ignore[reportMissingTypeStubs]
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import log
from serving.app import create_app, is_ready
from serving.registry import open_registry
from training.errors import EncoreError
from training.imports import lasting

BENTOML_PATHS = frozenset(("/livez", "/readyz", "/healthz", "/metrics", "/schema.json", "/docs.json"))

app = create_app()


class DirectService(Service[Any]):
    """A BentoML service whose requests reach the mounted application without BentoML's middleware."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """BentoML's application for its own paths and the lifespan, ours for everything else."""
        inner: ASGIApp = super().to_asgi(is_main=is_main)

        async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
            direct = scope["type"] == "http" and scope["path"] not in BENTOML_PATHS
            await (app if direct else inner)(scope, receive, send)

        return dispatch


@bentoml.service(
    name="encore",
    service_class=DirectService,
    http={"host": "127.0.0.1", "port": 3000},  # pyright: ignore[reportArgumentType]  # a text is parsed
    traffic={"timeout": 3600},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
@bentoml.asgi_app(app, path="/")
class Encore:
    """Answers classification requests in the wire formats of hosted APIs."""

    @bentoml.on_deployment
    def prepare() -> None:  # type: ignore[misc]
        """Check the settings and undo what a crash left behind: once, before any worker starts."""
        try:
            open_registry().heal()
        except EncoreError as error:
            sys.exit(f"{error}")

    def __init__(self) -> None:
        """Import what is heavy, which `prepare`'s process need not."""
        with lasting():
            importlib.import_module("serving.scoring")
        log.configure()

    def __is_ready__(self) -> bool:
        """Whether requests would be answered, for `/readyz`."""
        return is_ready(app)
