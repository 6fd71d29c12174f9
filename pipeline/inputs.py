"""From settings to the DAG's inputs: phantom and dataset made ready, schema pinned, code hashed."""

import hashlib
import importlib.resources
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import DataSettings, PipelineConfig
from pipeline.runs import NodeState
from pipeline.workspace import Workspace
from schema.errors import CortexflowError

if TYPE_CHECKING:
    from pipeline.training import Inputs

OnNode = Callable[[NodeState], None]
CODE_ROOMS = ("schema", "trainer")  # code whose change must retrain


def prepare_dataset(config: DataSettings, workspace: Workspace, observe: OnNode) -> Path:
    """Makes the phantom if asked for, and imports the images unless they are imported already."""
    from ingest.spans import DATASET_FILE

    if config.source == "phantom":
        source, name = _timed("Phantom", observe, lambda: _phantom(config, workspace))
        options = {"layout": "folder", "subject_regex": r"(subj\d+)"}
    else:
        source = Path(config.source).resolve()
        if (source / DATASET_FILE).is_file():
            return source
        key = f"{source}:{config.model_dump_json()}"
        name = f"{source.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        options = {"layout": config.layout, "subject_regex": config.subject_regex}
    return _timed(
        "Ingest", observe, lambda: _import(config, source, workspace.dataset(name), options)
    )


def _phantom(config: DataSettings, workspace: Workspace) -> tuple[Path, str]:
    from ingest.phantom import PhantomSpec, generate

    spec = PhantomSpec(**config.phantom.model_dump())
    return generate(spec, workspace.phantoms) / "images", f"phantom-{spec.fingerprint()[:12]}"


def _import(config: DataSettings, source: Path, out: Path, options: dict) -> Path:
    import ingest

    ingest.import_dataset(
        source,
        out,
        unlabelled=config.unlabelled,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
        max_quarantined=config.max_quarantined,
        reproduce_shipped_split=config.reproduce_shipped_split,
        **options,
    )
    return out


def code_digest() -> str:
    """Hash of the code that training runs; TFX caches by settings and inputs alone."""
    digest = hashlib.sha256()
    for room in CODE_ROOMS:
        root = Path(str(importlib.resources.files(room)))
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def pinned_schema(choice: str | None, workspace: Workspace) -> str | None:
    """A copy of the schema under the hash of its content (ImportSchemaGen caches by path alone).

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
    content = path.read_bytes()
    pinned = workspace.schema(hashlib.sha256(content).hexdigest()[:16])
    if not pinned.is_file():
        pinned.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, pinned.with_suffix(".partial"))
        pinned.with_suffix(".partial").replace(pinned)
    return str(pinned)


def training_inputs(config: PipelineConfig, workspace: Workspace, dataset: Path) -> "Inputs":
    """Facts of the dataset and places of this machine, as the DAG needs them."""
    from ingest.spans import read_dataset
    from registry.local import LocalRegistry

    from pipeline.training import Inputs

    card = read_dataset(dataset)
    live = LocalRegistry(workspace.registry, config.model_name).live()
    return Inputs(
        dataset=str(dataset),
        classes=tuple(card.classes),
        severity=tuple(card.severity) if card.severity else None,
        splits=tuple(card.splits),
        leaked=card.leaked,
        schema_file=pinned_schema(config.schema_file, workspace),
        checkpoints=str(workspace.checkpoints),
        registry=str(workspace.registry),
        live_version=f"{live.number}:{live.digest}" if live else "",
        code_digest=code_digest(),
    )


def _timed(node: str, observe: OnNode, work: Callable):
    observe(NodeState(node=node, state="running"))
    started = time.monotonic()
    try:
        result = work()
    except BaseException:
        observe(NodeState(node=node, state="failed", seconds=time.monotonic() - started))
        raise
    observe(NodeState(node=node, state="ran", seconds=time.monotonic() - started))
    return result
