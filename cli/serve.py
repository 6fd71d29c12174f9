"""`cortexflow serve`: the registry's live models over TF Serving's REST and gRPC."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.run import WorkspaceOption
from schema.errors import CortexflowError

if TYPE_CHECKING:
    from serving.config import ServerSettings
    from serving.server import ModelServer

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

EXAMPLES = """
[bold]Examples[/]

  cortexflow serve

  cortexflow serve --registry /srv/registry --host 0.0.0.0 --prediction-log /srv/log

  cortexflow serve --rest-port 0 --grpc-port 0 --set limits.max_instances=64

  cortexflow serve --dry-run
"""

# Threads of NumPy's linear algebra, started when it is loaded. A server's products are small
# and its cores are taken by requests: threads that wait for work by spinning take them away.
_LINEAR_ALGEBRA = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class ServeError(CortexflowError):
    """The server cannot be started as asked."""


@app.command(epilog=EXAMPLES)
def serve(
    registry: Annotated[
        Path | None,
        typer.Option(
            "--registry", help="Folder with models.config.", show_default="the workspace's"
        ),
    ] = None,
    rest_port: Annotated[
        int, typer.Option(help="Port of REST; 0 takes a free one.", min=0, max=65535)
    ] = 8501,
    grpc_port: Annotated[
        int, typer.Option(help="Port of gRPC; 0 takes a free one.", min=0, max=65535)
    ] = 8500,
    host: Annotated[
        str, typer.Option(help="Address; 0.0.0.0 lets other machines ask.")
    ] = "127.0.0.1",
    runtime: Annotated[
        str,
        typer.Option(help="auto, litert-int8, litert-float or savedmodel.", metavar="NAME"),
    ] = "auto",
    prediction_log: Annotated[
        Path | None,
        typer.Option(help="Folder for what was answered: descriptors and probabilities."),
    ] = None,
    input_gate: Annotated[
        bool,
        typer.Option(
            "--input-gate/--no-input-gate",
            help="Refuse images unlike those the model was trained on.",
        ),
    ] = True,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any setting of serving.config; VALUE is JSON, else text; repeatable.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Load, listen, say what would answer; then leave.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Serve the live models, and follow promote and rollback while it runs.

    SIGTERM and Ctrl-C let requests under way end. docs/serving.md has the API.
    """
    for name in _LINEAR_ALGEBRA:
        os.environ.setdefault(name, "1")
    if registry is None:
        from pipeline.workspace import Workspace

        registry = Workspace.at(workspace).registry
    document: dict[str, Any] = {
        "registry": registry.expanduser().resolve(),
        "runtime": runtime,
        "host": host,
        "rest_port": rest_port,
        "grpc_port": grpc_port,
        "input_gate": input_gate,
        "prediction_log": prediction_log,
    }
    chosen = _settings(document, settings or [])
    _check(chosen.registry)
    from serving import server

    if dry_run:
        import asyncio

        asyncio.run(_try(chosen))
        return
    raise typer.Exit(server.run(chosen, _announce))


def _settings(document: dict[str, Any], assignments: list[str]) -> "ServerSettings":
    from pydantic import ValidationError

    from serving.config import ServerSettings

    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ServeError(
                f"A setting needs the form key=value (received {assignment!r}), for example "
                "--set limits.max_instances=64"
            )
        *path, last = key.split(".")
        place = document
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ServeError(f"There is no setting {key}: {part} has no parts.")
        try:
            place[last] = json.loads(text)
        except json.JSONDecodeError:
            place[last] = text
    try:
        return ServerSettings.model_validate(document)
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']} (received {one['input']!r})"
            for one in error.errors()
        )
        raise ServeError(f"Settings are not valid: {told}.") from None


def _check(registry: Path) -> None:
    """Says before anything is loaded that there is nothing to serve."""
    from registry import serving_config
    from registry.serving_config import LIVE

    pointer = registry / "models.config"
    if not registry.is_dir():
        raise ServeError(
            f"There is no registry in {registry}. `cortexflow run quickstart` makes one in the "
            "workspace; --registry names another folder."
        )
    if not pointer.is_file():
        raise ServeError(
            f"No version is live: {pointer} does not exist. Make one live with "
            "`cortexflow promote N`, or run a pipeline whose model passes its gate."
        )
    models = serving_config.parse(pointer.read_text())
    if not any(LIVE in model.labels for model in models):
        raise ServeError(
            f"No version is live in {pointer}. Make one live with `cortexflow promote N`."
        )


async def _try(settings: "ServerSettings") -> None:
    from serving import logs
    from serving.server import ModelServer

    logs.configure()
    server = ModelServer(settings)
    await server.start()
    try:
        _announce(server)
        if not server.engine.ready:
            raise ServeError("A live version does not answer; see the lines above.")
    finally:
        await server.stop()
    typer.echo("All of it works; nothing was left running (--dry-run).")


def _announce(server: "ModelServer") -> None:
    """Tells people where it listens, what is live, and how to ask it."""
    host = server.settings.host
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104
    shown = f"[{shown}]" if ":" in shown else shown
    rest = f"http://{shown}:{server.rest_port}"
    if server.rest_port is not None:
        typer.echo(f"REST  {rest}/v1/models")
    if server.grpc_port is not None:
        typer.echo(f"gRPC  {shown}:{server.grpc_port}")
    for name, traffic in server.engine.models().items():
        live = "nothing is live" if traffic.live is None else f"version {traffic.live} is live"
        canary = (
            ""
            if traffic.canary is None
            else f", version {traffic.canary} is its canary with {traffic.percent} %"
        )
        typer.echo(f"{name}: {live}{canary}")
        for status in server.engine.status(name):
            if status.error_code != "OK":
                typer.secho(
                    f"{name}: version {status.version} does not answer: {status.error_message}",
                    fg=typer.colors.RED,
                    err=True,
                )
        if server.rest_port is not None:
            typer.echo(
                "Try   curl --data-binary @slice.png -H 'content-type: image/png' "
                f"{rest}/v1/models/{name}:predict"
            )
    typer.echo("Research use only, not for diagnosis.")
