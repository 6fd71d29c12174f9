"""The documents of a run: its evidence, its report and its model card."""

import dataclasses

from components.report import card, html, storage
from components.report.evidence import Evidence, Override, Pushed
from pipeline import versions
from pipeline.runs import RunFolder, RunRecord
from pipeline.workspace import Workspace
from registry.interface import Version


def publish(found: Evidence, folder: RunFolder) -> None:
    """Keeps the evidence, and writes report and model card from it, into the run's folder."""
    storage.save(found, folder.evidence)
    html.write(found, folder.report)
    card.write(found, folder.path)


def saved(folder: RunFolder, workspace: Workspace) -> Evidence:
    """The evidence that a run left, with an override that came after it.

    Raises:
        EvidenceError: there is none, or it cannot be read.
    """
    found, record = storage.load(folder.evidence), folder.read()
    if record.override is None:
        return found
    live = versions.registry(folder.read_config(), workspace).live()
    return dataclasses.replace(
        found, override=override_of(record), pushed=put_live(record, live) or found.pushed
    )


def override_of(record: RunRecord) -> Override | None:
    """Who let the run's model through."""
    made = record.override
    if made is None:
        return None
    return Override(made.who, made.reason, made.time.isoformat(timespec="seconds"))


def put_live(record: RunRecord, live: Version | None) -> Pushed | None:
    """The version that an override pushed; none of the run's nodes did."""
    if record.override is None or record.pushed_version is None:
        return None
    number = record.pushed_version
    return Pushed(number, live=live is not None and live.number == number)
