"""A small service that starts a run when new data is complete: `python -m pipeline.trigger`.

It takes Pub/Sub push messages, CloudEvents, and notifications of Cloud Storage, S3 and MinIO at
`POST /`, and submits a compiled pipeline to Kubeflow or Vertex AI. docs/ci.md: how to set it up.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schema.errors import CortexflowError

PREFIX = "CORTEXFLOW_TRIGGER_"
DRAIN_SECONDS = 30
PLACES = ("pipeline_root", "service_account")
DATASET = "dataset"  # the runtime parameter that names the data of a run
EXAMPLES = """
examples:
  # Pub/Sub push to Vertex AI; deliveries are signed by one service account
  python -m pipeline.trigger --on vertex://PROJECT/LOCATION --package mri.vertex.yaml \\
      --watch gs://BUCKET/datasets --pipeline-root gs://BUCKET/runs \\
      --param registry=gs://BUCKET/registry --host 0.0.0.0 \\
      --audience https://trigger.example.org --sender push@PROJECT.iam.gserviceaccount.com

  # MinIO inside a cluster, where a network policy says who may send
  python -m pipeline.trigger --on URI --package mri.kubeflow.yaml --watch s3://datasets \\
      --param registry=/srv/cortexflow/registry --host 0.0.0.0 --no-token

  # what would this message start?
  python -m pipeline.trigger --on URI --package FILE --watch gs://BUCKET \\
      --param registry=gs://BUCKET/registry --no-token --dry-run --message message.json

Every option may be given by the environment, too: --watch by CORTEXFLOW_TRIGGER_WATCH (lists are
separated by spaces), --pipeline-root by CORTEXFLOW_TRIGGER_PIPELINE_ROOT. Options win.
"""


class TriggerError(CortexflowError):
    """The trigger cannot be started as asked."""


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """The command line, with defaults from the environment."""
    made = argparse.ArgumentParser(
        prog="python -m pipeline.trigger",
        description="Start a run of a compiled pipeline when a new span of a dataset is complete.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def told(name: str) -> str | None:
        return environment.get(PREFIX + name.upper().replace("-", "_")) or None

    def option(name: str, text: str, default: str | None = None, **more: Any) -> None:
        made.add_argument(f"--{name}", default=told(name) or default, help=text, **more)

    def several(name: str, text: str, metavar: str) -> None:
        words = (told(name) or "").split()
        made.add_argument(f"--{name}", action="append", metavar=metavar, help=text)
        made.set_defaults(**{f"{name}_told": words})

    def switch(name: str, text: str) -> None:
        on = (told(name) or "").lower() in ("1", "true", "yes", "on")
        made.add_argument(f"--{name}", action="store_true", default=on, help=text)

    option("on", "address of the backend", metavar="URI")
    option("package", "file of the compiled pipeline", metavar="FILE")
    several("watch", "datasets below this address start runs; repeatable", "URI")
    option("suffix", "end of the name of the object written last (/dataset.json)", metavar="TEXT")
    option("name", "first part of the runs' names (new-data)", metavar="NAME")
    option("experiment", "experiment of the runs (new-data)", metavar="NAME")
    option("pipeline-root", "where artifacts go (the package's default)", metavar="URI")
    option("service-account", "under which nodes run (the cluster's own)", metavar="NAME")
    several("param", "runtime parameter of all runs; repeatable", "NAME=VALUE")
    option("debounce", "seconds for which a dataset has to rest (5)", metavar="SECONDS")
    option("timeout", "seconds after which a submission is given up (60)", metavar="SECONDS")
    option("state", "folder of what it remembers; on a volume", "trigger-state", metavar="FOLDER")
    option("audience", "audience of the sender's token", metavar="URL")
    several("sender", "service account whose tokens are accepted; repeatable", "EMAIL")
    switch("no-token", "take messages of anybody who reaches the port")
    option("host", "address to listen on; 0.0.0.0 lets other machines ask (127.0.0.1)", "127.0.0.1")
    option("port", "port; 0 takes a free one (8080)", "8080")
    switch("dry-run", "tell what would be submitted; submit and remember nothing")
    made.add_argument(
        "--message", metavar="FILE", help="read one message (- is standard input), answer, leave"
    )
    return made


def _parameters(text: str, assignments: Sequence[str]) -> dict[str, Any]:
    """Values for the package, which must lack none but the dataset's address."""
    from pipeline.backends import packages

    package = packages.read(text)
    values = packages.given_parameters(package, assignments)
    if DATASET not in package.parameters:
        raise TriggerError(
            f"The package takes no runtime parameter {DATASET!r}, so it cannot be told of new "
            "data. Write it with this version's `cortexflow compile`."
        )
    if lacking := set(packages.missing(package, values)) - {DATASET}:
        raise TriggerError(
            f"The package needs values for {', '.join(sorted(lacking))}. Give each by --param "
            "NAME=VALUE."
        )
    return values


def settings_of(given: argparse.Namespace, package: str) -> Any:
    """The settings among the options.

    Args:
        given: the options.
        package: text of the compiled pipeline, against which parameters are held.

    Returns:
        A `pipeline.trigger_service.TriggerSettings`.

    Raises:
        TriggerError: one is missing or out of range.
        BackendError: the package is none, or does not take a parameter.
    """
    from pipeline.backends.opening import target_of
    from pipeline.trigger_service import TriggerSettings

    if not given.on:
        raise TriggerError("--on is missing. See python -m pipeline.trigger --help")
    watch = given.watch or given.watch_told
    if not watch:
        raise TriggerError(
            "--watch is missing: name the addresses below which datasets may start runs, for "
            "example --watch gs://BUCKET/datasets"
        )
    document: dict[str, Any] = {
        "on": given.on,
        "watch": watch,
        "parameters": _parameters(package, given.param or given.param_told),
        "dry_run": given.dry_run,
    }
    for name in ("suffix", "name", "experiment", "debounce", "timeout", *PLACES):
        if getattr(given, name) is not None:
            document[name] = getattr(given, name)
    target_of(given.on)  # raises where it is none
    try:
        return TriggerSettings.model_validate(document)
    except ValidationError as error:
        told = "; ".join(
            f"--{'.'.join(map(str, one['loc'])) or 'watch'}: {one['msg']} "
            f"(received {one['input']!r})"
            for one in error.errors()
        )
        raise TriggerError(f"Settings are not valid: {told}.") from None


def token_check(given: argparse.Namespace) -> Any:
    """Who may send: a `TokenCheck`, or None for everybody.

    Raises:
        TriggerError: neither senders nor --no-token, or both.
    """
    from pipeline.trigger_auth import TokenCheck

    senders = given.sender or given.sender_told
    if given.no_token:
        if given.audience or senders:
            raise TriggerError("--no-token checks nobody, so --audience and --sender say nothing.")
        return None
    if not given.audience or not senders:
        raise TriggerError(
            "--audience and --sender are missing: they say whose signed messages start runs. "
            "Inside a cluster whose network policy says who may send: --no-token"
        )
    return TokenCheck(given.audience, tuple(senders))


def open_backend(uri: str) -> Any:
    """The cluster that a URI names."""
    from pipeline.backends.opening import open_cluster

    return open_cluster(uri)


def main(
    arguments: Sequence[str] | None = None, opened: Callable[[str], Any] = open_backend
) -> int:
    """Serves until SIGTERM or SIGINT, or answers one message.

    Args:
        arguments: of the command line; None: the process's.
        opened: gives the backend of an address.

    Returns:
        The exit code.
    """
    given = parser(os.environ).parse_args(arguments)
    from pipeline.trigger_service import Trigger

    try:
        check = token_check(given)
        package = _package(given.package)
        settings = settings_of(given, package)
        with _book(Path(given.state), settings.dry_run) as book:
            trigger = Trigger(settings, package, book, opened)
            if given.message:
                return asyncio.run(_one(trigger, given.message))
            return asyncio.run(_serve(trigger, len(book), check, given.host, given.port))
    except CortexflowError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _package(file: str | None) -> str:
    if not file:
        raise TriggerError("--package is missing. See python -m pipeline.trigger --help")
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TriggerError(
            f"The package {file} cannot be read: {error}. Make one with `cortexflow compile "
            "PRESET --for kubeflow|vertex --out FILE`."
        ) from error


@contextlib.contextmanager
def _book(folder: Path, dry_run: bool) -> Iterator[Any]:
    """The book; of a dry run one that is gone afterwards."""
    import tempfile

    from pipeline.trigger_book import Book

    with tempfile.TemporaryDirectory() as scratch:
        book = Book(Path(scratch) if dry_run else folder)
        try:
            yield book
        finally:
            book.close()


async def _one(trigger: Any, file: str) -> int:
    """Carries out one message from a file, without a check of its sender; prints what it did."""
    from pipeline import trigger_events

    try:
        body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise TriggerError(f"The message {file} cannot be read: {error.strerror}.") from error
    settings = trigger.settings
    message = trigger_events.read({}, body)
    for arrival in message.arrivals:
        answer = await trigger.arrived(arrival)
        told = {key: value for key, value in answer._asdict().items() if value}
        if answer.outcome == "would start":
            told |= trigger.submission(answer.dataset, arrival.key)._asdict()
            told |= {"on": settings.on, "pipeline_root": settings.pipeline_root}
        print(json.dumps(told))
    for reason in message.ignored:
        print(json.dumps({"outcome": "ignored", "reason": reason}))
    return 0


async def _serve(trigger: Any, known: int, check: Any, host: str, port: str) -> int:
    import uvicorn

    from pipeline.trigger_http import TriggerApp
    from serving import logs

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # ours, below

    logs.configure()
    settings = trigger.settings
    listener = _listener(host, port)
    server = Server(
        uvicorn.Config(
            TriggerApp(trigger, check),
            http="h11",  # bounds the headers
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            # Those that wait for a dataset are refused at once; a submission may come to its end.
            timeout_graceful_shutdown=round(settings.timeout) + DRAIN_SECONDS,
        )
    )

    def on_signal(number: int) -> None:
        if trigger.stopping:
            os._exit(128 + number)
        logs.event("signal", number=number)
        trigger.stop()
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    bound = listener.getsockname()[1]
    logs.event("listening", host=host, port=bound, known=known, dry_run=settings.dry_run)
    await server.serve(sockets=[listener])
    logs.event("stopped")
    return 0


def _listener(host: str, port: str) -> socket.socket:
    if not port.isdigit() or int(port) > 65535:
        raise TriggerError(f"--port is no port (received {port!r}).")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
        listener.listen()  # who asks before uvicorn takes over waits for it
    except OSError as error:
        listener.close()
        raise TriggerError(
            f"{host}:{port} cannot be listened on: {error.strerror}. Give another --port."
        ) from error
    return listener


if __name__ == "__main__":
    sys.exit(main())
