"""`cortexflow compile`: the pipeline as a file that Kubeflow Pipelines and Vertex AI run."""

from pathlib import Path
from typing import Annotated

import typer

from cli.run import complete_preset

app = typer.Typer(no_args_is_help=True)


def complete_target(incomplete: str) -> list[str]:
    """Targets for tab completion."""
    from pipeline.cluster import TARGETS

    return [target for target in TARGETS if target.startswith(incomplete)]


@app.command("compile")
def compile_preset(
    preset: Annotated[
        str, typer.Argument(help="`quickstart` or `mri`.", autocompletion=complete_preset)
    ],
    target: Annotated[
        str,
        typer.Option("--for", help="kubeflow or vertex.", autocompletion=complete_target),
    ] = "kubeflow",
    data: Annotated[
        Path | None,
        typer.Option(
            help="An imported dataset of the kind that will be trained on; default: four classes.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Image of every node; by digest where caches are used.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; default: PRESET-TARGET.yaml; - for standard output."),
    ] = None,
) -> None:
    """Compile a preset for a cluster: no network, no credentials, nothing but the file is written.

    cortexflow compile quickstart --for kubeflow
    cortexflow compile mri --for vertex --image europe-docker.pkg.dev/p/r/cortexflow@sha256:…
    cortexflow compile mri --data workspace/data/mine --set cluster.nodes.Teacher.cpu=8 --out -
    """
    import json

    from cli import progress
    from ingest.atomic import write_text
    from pipeline import presets
    from pipeline.cluster import TARGETS
    from pipeline.config import with_overrides

    if target not in TARGETS:
        raise typer.BadParameter(
            f"{target!r} is neither {' nor '.join(TARGETS)}.", param_hint="--for"
        )
    assignments = [*(settings or [])]
    if image is not None:
        assignments.append(f"cluster.image={json.dumps(image)}")
    config = with_overrides(presets.load(preset), assignments)
    with progress.quiet_tensorflow():
        from pipeline.compiling import compile_pipeline
        from pipeline.facts import Facts, read_facts

        latest = config.data.spans == "latest"
        facts = Facts() if data is None else read_facts(data, latest=latest)
        compiled = compile_pipeline(config, target, facts)  # type: ignore[arg-type]
        text = compiled.yaml
    if out == Path("-"):
        typer.echo(text)
        return
    path = out or Path(f"{preset}-{target}.yaml")
    write_text(path, text)
    nodes = len(compiled.spec["root"]["dag"]["tasks"])
    required = [name for name, it in compiled.parameters.items() if "defaultValue" not in it]
    typer.echo(
        f"{path}: {nodes} nodes, {len(compiled.parameters)} parameters "
        f"(to be given: {', '.join(required) or 'none'})"
    )
