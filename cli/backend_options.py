"""Options that the commands around backends share."""

import datetime
from pathlib import Path
from typing import Annotated

import typer

VARIABLE = "CORTEXFLOW_BACKEND"
NAMED = "local, kubeflow://HOST/NAMESPACE, or vertex://PROJECT/LOCATION."


def complete_backend(incomplete: str) -> list[str]:
    """How addresses of backends begin, for tab completion."""
    begun = ["local", "kubeflow://", "kubeflow+http://", "vertex://"]
    return [name for name in begun if name.startswith(incomplete)]


def complete_node(incomplete: str) -> list[str]:
    """Names of nodes for tab completion."""
    from pipeline.cluster import NODES

    return [name for name in NODES if name != "default" and name.startswith(incomplete)]


def complete_preset(incomplete: str) -> list[str]:
    """Preset names for tab completion."""
    from pipeline import presets

    return [name for name in presets.names() if name.startswith(incomplete)]


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\n\n".join(["\n[bold]Examples[/]", *(f"  cortexflow {line}" for line in lines)])


PresetArgument = Annotated[
    str, typer.Argument(help="`quickstart` or `mri`.", autocompletion=complete_preset)
]
OnOption = Annotated[
    str,
    typer.Option(
        "--on",
        metavar="URI",
        envvar=VARIABLE,
        help=f"Where runs are: {NAMED}",
        autocompletion=complete_backend,
    ),
]
TargetOption = Annotated[
    str,
    typer.Option(
        "--on",
        metavar="URI",
        envvar=VARIABLE,
        help=f"Where it shall run: {NAMED}",
        autocompletion=complete_backend,
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        metavar="DATASET",
        help="Images, an imported dataset, or `phantom`: imported here and copied below the "
        "pipeline root, unless it lies there; or the address of an imported dataset.",
    ),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; repeatable."),
]
ParametersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--param", metavar="NAME=VALUE", help="A runtime parameter of the pipeline; repeatable."
    ),
]
ExperimentOption = Annotated[
    str, typer.Option(help="Runs of one experiment are shown together; made if it is not there.")
]
NameOption = Annotated[
    str | None, typer.Option(help="What people see.", show_default="the preset and the time")
]
LabelsOption = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Repeatable.")
]
CacheOption = Annotated[
    bool, typer.Option("--no-cache", help="Let no earlier execution answer for a node.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be sent; send and copy nothing.")
]
ImageOption = Annotated[
    str | None, typer.Option(help="Image of every node; by digest where caches are used.")
]
RootOption = Annotated[
    str,
    typer.Option(
        "--pipeline-root",
        metavar="URI",
        help="Where artifacts go.",
        show_default="the setting cluster.pipeline_root, else the cluster's own",
    ),
]
SpecOption = Annotated[
    Path | None,
    typer.Option(
        "--spec", metavar="FILE", help="A file of `cortexflow compile`, in place of compiling."
    ),
]
StartOption = Annotated[datetime.datetime | None, typer.Option(help="First day, in UTC.")]
EndOption = Annotated[datetime.datetime | None, typer.Option(help="Last day, in UTC.")]
