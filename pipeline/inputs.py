"""From settings to the DAG's inputs: phantom and dataset made ready, schema pinned, code hashed."""

import hashlib
import importlib.resources
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import ingest
from ingest import phantom
from ingest.datasets import read_dataset
from ingest.phantom import PhantomSpec
from pipeline import versions
from pipeline.config import DataSettings, PipelineConfig
from pipeline.facts import fingerprint, read_facts
from pipeline.runs import NodeState
from pipeline.workspace import Workspace
from schema.errors import CortexflowError

if TYPE_CHECKING:
    from pipeline.training import Inputs

LOG = logging.getLogger("ingest")
TRAINER = logging.getLogger("trainer")

OnNode = Callable[[NodeState], None]
PHANTOM = "phantom"
# What ServingCheck's answer depends on, beside the trainer's own code.
TRIED_OUT_BY = (
    "components/serving_check.py",
    "registry/manifest.py",
    "serving/allowed_ops.json",
    "serving/allowlist.py",
    "serving/graphs.py",
    "serving/preprocessing.py",
    "serving/probe*.py",
)


def prepare_dataset(config: DataSettings, workspace: Workspace, observe: OnNode) -> Path:
    """Makes the phantom if asked for, and imports the images unless they are imported already.

    Args:
        config: where the images come from.
        workspace: where phantoms and datasets are kept.
        observe: told of the nodes `Phantom` and `Ingest`.

    Returns:
        The folder of an imported dataset.

    Raises:
        CortexflowError: the source is missing, or is nothing that can be imported.
    """
    if config.source is None:
        raise CortexflowError(
            "There are no images to run on. Give them with --data: a folder of class folders, of "
            "TFRecords, or an imported dataset; or `phantom`."
        )
    if config.source == PHANTOM:
        spec = PhantomSpec(**config.phantom.model_dump())
        anew = not (workspace.phantoms / spec.fingerprint()).is_dir()
        source = _timed(
            "Phantom",
            observe,
            lambda: (phantom.generate(spec, workspace.phantoms, progress=_people) / "images", anew),
        )
        name = f"phantom-{spec.preset}"
        config = config.model_copy(update={"layout": "folders", "subject_regex": r"(subj\d+)"})
    else:
        source = Path(config.source).expanduser().resolve()
        name = source.name
        if (source / "dataset.json").is_file():
            _refuse_import_settings(config)
            return source
    # What decides who is in which split, and nothing else: the same people must keep their split.
    fields = ("layout", "subject_regex", "val_fraction", "test_fraction", "seed")
    key = repr([str(source), config.reproduce_shipped_split, *(getattr(config, f) for f in fields)])
    out = workspace.dataset(f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}")
    anew = not (out / "dataset.json").is_file()
    return _timed("Ingest", observe, lambda: (_import(config, source, out, name), anew))


def _refuse_import_settings(config: DataSettings) -> None:
    given = [name for name in ("subject_regex", "unlabelled") if getattr(config, name) is not None]
    if given:
        raise CortexflowError(
            f"{config.source} is a dataset already: data.{', data.'.join(given)} would do nothing. "
            "Leave it out, or give the images it was imported from."
        )


def _import(config: DataSettings, source: Path, out: Path, name: str) -> Path:
    return ingest.import_dataset(
        source,
        out,
        name=name,
        val=config.val_fraction,
        test=config.test_fraction,
        seed=config.seed,
        max_quarantined=config.max_quarantined,
        reproduce_shipped_split=config.reproduce_shipped_split,
        layout=config.layout,
        subject_regex=config.subject_regex,
        unlabelled=config.unlabelled,
        progress=lambda what, done, total: LOG.info("%s %d of %d", what, done, total),
    ).path


def _people(done: int, total: int) -> None:
    LOG.info("%d of %d people", done, total)


def code_digest(*parts: str) -> str:
    """Hash of code, which TFX's cache would not notice: it knows settings and inputs alone.

    Args:
        parts: rooms, each with all below it (`trainer`), or patterns (`components/*.py`).

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in parts:
        room, _, pattern = part.partition("/")
        root = Path(str(importlib.resources.files(room)))
        for path in sorted(root.glob(pattern or "**/*.py")):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def schema_text(choice: str | None) -> str | None:
    """The schema of the setting `schema_file`, as text; None where it is to be inferred.

    Raises:
        CortexflowError: the file is missing.
    """
    if choice is None:
        return None
    if choice == "curated":
        path = Path(str(importlib.resources.files("schema") / "schema.pbtxt"))
    else:
        path = Path(choice)
    if not path.is_file():
        raise CortexflowError(
            f"No schema at {path}. Write one with `cortexflow schema infer`, or set "
            "schema_file=null to infer it from this data."
        )
    return path.read_text()


def pinned_checkpoint(
    config: PipelineConfig, workspace: Workspace, observe: OnNode = lambda state: None
) -> tuple[str | None, str]:
    """Absolute place of the encoder to start from, made ready for this run, and its weights' hash.

    Args:
        config: its `checkpoint` is a folder that a Pretrainer exported, a checkpoint in one of the
            public code's formats, or an alias or address of one; None: there is none.
        workspace: where downloads and converted checkpoints are kept.
        observe: told of the node `Fetch`.

    Raises:
        CortexflowError: there is no such checkpoint, it cannot be fetched, a variable does not fit,
            it lacks the projection layers that the teacher wants to keep, or this machine lacks
            the devices that the training wants.
    """
    if config.checkpoint is None:
        return None, ""
    from trainer.checkpoints import aliases

    text = config.checkpoint
    aliases.known(text)  # a typo is told before TensorFlow is loaded
    from trainer.checkpoints import conversion, fetching
    from trainer.execution import Execution

    # A conversion computes, and TensorFlow divides its devices before it computes anything only.
    Execution(config.teacher.execution)
    megabytes = 1 << 20

    def told(name: str, done: int, total: int) -> None:
        TRAINER.info("%s: %d of %d MiB of %s", name, done / megabytes, total / megabytes, text)

    folder = _timed(
        "Fetch",
        observe,
        lambda: fetching.fetch(text, workspace.pretrained, config.teacher.input, progress=told),
    )
    kept, wanted = conversion.projection_layers(folder), config.teacher.ft_proj_selector
    if wanted > kept:
        raise CortexflowError(
            f"The checkpoint {text} has {kept} projection layers, and the teacher would classify "
            f"from layer {wanted}. Set teacher.ft_proj_selector={kept}"
            + ("" if kept else ", or take a checkpoint with its projection head (…/hub)")
            + "."
        )
    with (folder / "bundle" / "weights.npz").open("rb") as weights:
        return str(folder), hashlib.file_digest(weights, "sha256").hexdigest()


def training_inputs(
    config: PipelineConfig,
    workspace: Workspace,
    dataset: Path,
    baseline: str | None = None,
    observe: OnNode = lambda state: None,
) -> "Inputs":
    """Facts of the dataset and places of this machine, as the DAG needs them.

    Args:
        config: the run's settings.
        workspace: where everything is kept.
        dataset: an imported dataset.
        baseline: what was live when the run first started; None looks now.
        observe: told of the node `Fetch`, when there is a checkpoint to start from.

    Raises:
        CortexflowError: a split is empty, the live model knows other classes, a file that the
            settings name is missing, or the checkpoint cannot be used.
    """
    from pipeline.training import Inputs

    found = read_dataset(dataset)
    live = versions.registry(config, workspace).live()
    if live is not None and tuple(live.lineage.get("classes", ())) != found.info.classes:
        raise CortexflowError(
            f"The live version of {config.model_name!r} knows the classes "
            f"{live.lineage.get('classes')}, this data has {list(found.info.classes)}: they cannot "
            "be compared. Give this model a name of its own: --set model_name=NAME"
        )
    facts = read_facts(dataset, latest=config.data.spans == "latest")
    checkpoint, checkpoint_digest = pinned_checkpoint(config, workspace, observe)
    if baseline is None:
        baseline = f"{live.number}:{live.digest}" if live else ""
    return Inputs(
        dataset=str(dataset),
        facts=facts,
        registry=versions.address(config, workspace),
        model_name=config.model_name,
        touches=str(workspace.touches),
        checkpoints=str(workspace.checkpoints),
        schema_text=schema_text(config.schema_file),
        checkpoint=checkpoint,
        checkpoint_digest=checkpoint_digest,
        live_version=baseline,
        fingerprint=fingerprint(found),
        data_code=code_digest("schema", "components/image_example_gen.py"),
        training_code=code_digest("schema", "trainer"),
        judging_code=code_digest("schema", "trainer", "evaluation", "components/*.py"),
        serving_code=code_digest("schema", "trainer/*.py", *TRIED_OUT_BY),
    )


def _timed(node: str, observe: OnNode, work: Callable[[], tuple[Path, bool]]) -> Path:
    """Tells of a node; its work gives a path, and whether anything had to be made for it."""
    observe(NodeState(node=node, state="running"))
    started = time.monotonic()
    try:
        result, anew = work()
    except BaseException:
        observe(NodeState(node=node, state="failed", seconds=time.monotonic() - started))
        raise
    state: Literal["cached", "ran"] = "ran" if anew else "cached"
    observe(NodeState(node=node, state=state, seconds=time.monotonic() - started))
    return result
