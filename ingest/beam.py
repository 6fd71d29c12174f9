"""Running tasks on Apache Beam: in this process by default, on any runner by flags."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# Beam's DirectRunner prefers Prism, a Go binary that it downloads. Prism declines pipelines that
# allow unsafe triggers (we have none), which leaves the FnApiRunner: in this process, offline.
# `--direct_running_mode=multi_processing --direct_num_workers=N` uses N processes.
LOCAL_OPTIONS = (
    "--runner=DirectRunner",
    "--direct_running_mode=in_memory",
    "--allow_unsafe_triggers",
)


def run_tasks(
    tasks: Sequence[Path],
    targets: Sequence[Path],
    options: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Runs `tasks.run_task` on every task as a Beam pipeline; those already done cost nothing.

    Args:
        tasks: task files.
        targets: their results, by which progress is counted and known.
        options: Beam flags; they override `LOCAL_OPTIONS`.
        progress: called with (done, all) about five times a second.
    """
    todo = [task for task, target in zip(tasks, targets, strict=True) if not target.exists()]
    with _watched(targets, progress):
        if todo:
            _run(todo, options)


def _run(tasks: Sequence[Path], options: Sequence[str]) -> None:
    import apache_beam as beam  # noqa: PLC0415  a repeated import of known data needs no Beam
    from apache_beam.options.pipeline_options import PipelineOptions  # noqa: PLC0415

    from ingest.tasks import run_task  # noqa: PLC0415

    with beam.Pipeline(options=PipelineOptions([*LOCAL_OPTIONS, *options])) as pipeline:
        _ = (
            pipeline
            | "Tasks" >> beam.Create([str(task) for task in tasks])
            | "ShareOut" >> beam.Reshuffle()
            | "Run" >> beam.Map(run_task)
        )


@contextmanager
def _watched(
    targets: Sequence[Path], progress: Callable[[int, int], None] | None
) -> Iterator[None]:
    """Counts results as they appear: works the same for every runner."""
    if progress is None:
        yield
        return
    stop = threading.Event()

    def count() -> None:
        progress(sum(target.exists() for target in targets), len(targets))

    def watch() -> None:
        while not stop.wait(0.2):
            count()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
        count()
    finally:
        stop.set()
        watcher.join()
