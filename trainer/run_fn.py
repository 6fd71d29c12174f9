"""The door through which TFX's Trainer calls the three stages.

`fn_args` is duck-typed; nothing here imports TFX. `custom_config` holds `stage` (settings as JSON),
`classes` and `severity` (JSON lists), `checkpoint_root` (a place that outlives a killed run) and
`code_digest` (a hash of the training code: a stage half trained by other code starts anew). Every
place is a folder or an address that TensorFlow knows (`gs://…`).
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schema import places
from trainer import (
    bundle,
    checkpointing,
    examples,
    export,
    golden,
    input_gate_export,
    litert,
    loop,
)
from trainer.bundle import Bundle
from trainer.config import (
    DistilSettings,
    FinetuneSettings,
    PretrainSettings,
    StageSettings,
    parse_stage,
)
from trainer.errors import BundleError, StageError
from trainer.examples import Examples
from trainer.execution import Execution
from trainer.loop import Workspace
from trainer.remote_states import RemoteFolder
from trainer.stages.distil import distil
from trainer.stages.finetune import finetune
from trainer.stages.pretrain import pretrain
from trainer.stages.trained import Trained


@dataclass(frozen=True)
class Job:
    """What `fn_args` asks for, read and checked.

    Attributes:
        settings: of the stage.
        classes: class names; labels index it.
        severity: the classes in ordinal order, or `None`.
        train_files: patterns of labelled and unlabelled training files.
        eval_files: patterns of the validation split.
        base_model: the SavedModel that this stage starts from, if any; its bundle lies beside it.
        serving_model_dir: where the SavedModel goes; the bundle goes beside it.
        logs: TensorBoard's folder, if any; behind an address it is filled when the stage ends.
        checkpoint_root: where all resumable states are kept, if anywhere.
        code_digest: hash of the training code, if known.
    """

    settings: PretrainSettings | FinetuneSettings | DistilSettings
    classes: tuple[str, ...]
    severity: tuple[str, ...] | None
    train_files: tuple[str, ...]
    eval_files: tuple[str, ...]
    base_model: str | None
    serving_model_dir: str
    logs: str | None
    checkpoint_root: str | None
    code_digest: str | None


def run_fn(fn_args: Any) -> None:
    """Trains one stage and exports its model (the contract of TFX's Trainer).

    Args:
        fn_args: an object with TFX's `FnArgs` attributes `custom_config`, `train_files`,
            `eval_files`, `base_model`, `serving_model_dir` and `model_run_dir`.

    Raises:
        schema.errors.CortexflowError: data, settings and base model do not fit, training diverged,
            or a converted model answers differently.
        Preempted: SIGTERM came; a process in which nobody handles it ends with exit code 143.
        pydantic.ValidationError: the stage's settings are not valid.
    """
    train_and_export(read_job(fn_args))


def read_job(fn_args: Any) -> Job:
    """Reads TFX's arguments.

    Raises:
        StageError: `custom_config` lacks the stage or the class names.
        pydantic.ValidationError: the stage's settings are not valid.
    """
    config = fn_args.custom_config or {}
    missing = [key for key in ("stage", "classes") if not config.get(key)]
    if missing:
        raise StageError(
            f"custom_config lacks {missing} (received keys: {sorted(config)}). It needs the "
            "stage's settings and the class names, both as JSON."
        )
    severity = json.loads(config.get("severity") or "null")
    return Job(
        settings=parse_stage(config["stage"]),
        classes=tuple(json.loads(config["classes"])),
        severity=tuple(severity) if severity else None,
        train_files=tuple(fn_args.train_files),
        eval_files=tuple(fn_args.eval_files or ()),
        base_model=fn_args.base_model or None,
        serving_model_dir=str(fn_args.serving_model_dir).rstrip("/"),
        logs=str(fn_args.model_run_dir) if fn_args.model_run_dir else None,
        checkpoint_root=str(config.get("checkpoint_root") or "").rstrip("/") or None,
        code_digest=config.get("code_digest") or None,
    )


def train_and_export(job: Job, progress: loop.Progress = loop.log_progress) -> Trained:
    """Runs a job from its files to its exported model, continuing where a killed run stopped.

    Under several workers each calls it with the same job, `checkpoint_root` being a place that
    all of them see; the chief exports, and nobody leaves before that. What lies behind an address
    is fetched first, and what belongs there is copied up when it is complete: states as they are
    saved, the model and the curves in the end.

    Args:
        job: what to do.
        progress: hears of every finished epoch.

    Returns:
        The trained model, already exported.
    """
    settings = job.settings
    execution = Execution(settings.execution)  # before TensorFlow computes anything
    base = _base(job.base_model) if job.base_model else None
    with contextlib.ExitStack() as scratch:
        checkpoints = _checkpoints(job, base, scratch)
        if checkpoints is not None and execution.is_chief:
            checkpointing.make_room(checkpoints)
        logs = scratch.enter_context(places.written(job.logs)) if job.logs else None
        workspace = Workspace(checkpoints, logs, progress, settings.checkpoint_every_seconds)
        train = examples.read(job.train_files, settings.input, job.classes)
        if isinstance(settings, PretrainSettings):
            # People held out are for probes alone, which images without labels do without.
            held_out = examples.read_if_any(job.eval_files, settings.input, job.classes)
            trained = pretrain(settings, train, held_out, workspace)
        else:
            held_out = examples.read(job.eval_files, settings.input, job.classes).labelled()
            stage = finetune if isinstance(settings, FinetuneSettings) else distil
            trained = stage(
                settings, train, held_out, classes=job.classes, base=base, workspace=workspace
            )
        _export_once(execution, job, trained, train, held_out)
    return trained


def _base(saved_model: str) -> Bundle:
    """The bundle beside a SavedModel.

    Raises:
        BundleError: there is none, or it is damaged.
    """
    if not places.is_remote(saved_model):
        return bundle.load(bundle.beside(saved_model))
    place = places.below(_parent(saved_model), "bundle")
    try:
        with places.fetched(place) as folder:
            return bundle.load(folder)
    except OSError as error:
        raise BundleError(
            f"No sound model bundle at {place}: {error}. Run the stage that writes it again."
        ) from error


def _checkpoints(
    job: Job, base: Bundle | None, scratch: contextlib.ExitStack
) -> Path | RemoteFolder | None:
    if job.checkpoint_root is None:
        return None
    # Pretraining learns no classes, and people held out are for its probes alone.
    unsupervised = isinstance(job.settings, PretrainSettings)
    files = job.train_files if unsupervised else (*job.train_files, *job.eval_files)
    mark = checkpointing.fingerprint(
        job.settings,
        examples.identity(files),
        base.digest if base else None,
        job.code_digest,
        () if unsupervised else job.classes,
    )
    name = f"{job.settings.stage}-{mark}"
    if not places.is_remote(job.checkpoint_root):
        return Path(job.checkpoint_root) / name
    local = scratch.enter_context(tempfile.TemporaryDirectory(prefix="cortexflow-states-"))
    return RemoteFolder(places.below(job.checkpoint_root, name), Path(local))


@contextlib.contextmanager
def _exported(serving_model_dir: str) -> Iterator[Path]:
    """Where a SavedModel may be written so that it, and all beside it, come to its place."""
    with places.written(_parent(serving_model_dir)) as artifact:
        yield artifact / serving_model_dir.rpartition("/")[2]


def _parent(folder: str) -> str:
    return folder.rstrip("/").rpartition("/")[0]


def _export_once(
    execution: Execution, job: Job, trained: Trained, train: Examples, held_out: Examples | None
) -> None:
    """The chief exports, and the others wait to hear how that ended."""
    failed = True
    try:
        if execution.is_chief:
            _export(job, trained, train, held_out)
        failed = False
    finally:
        anyone_failed = execution.any_worker(failed)
    if anyone_failed:
        raise StageError("The chief could not export the model; its own error says why.")


def _export(job: Job, trained: Trained, train: Examples, held_out: Examples | None) -> None:
    with _exported(job.serving_model_dir) as folder:
        _write(folder, job, trained, train, held_out)


def _write(
    folder: Path, job: Job, trained: Trained, train: Examples, held_out: Examples | None
) -> None:
    settings: StageSettings = job.settings
    classes: Sequence[str] = () if trained.kind == "encoder" else job.classes
    export.save(folder, trained.model, settings.input, classes, trained.temperature)
    if isinstance(settings, DistilSettings):
        litert.export(
            folder / "litert",
            trained.model,
            settings.litert,
            input_settings=settings.input,
            calibration=train,
            held_out=held_out,
            temperature=trained.temperature,
            quantized=trained.quantized,
        )
    if not isinstance(settings, PretrainSettings):
        input_gate_export.export(folder, job.train_files, job.eval_files, settings.input_gate)
    if classes:  # after all else, since it asks all that was exported
        golden.record(folder, settings.input.image_size, settings.input.channels)
    description = trained.described(settings, classes, job.severity)
    bundle.save(bundle.beside(str(folder)), trained.model, description, trained.history)
