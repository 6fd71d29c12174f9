"""Putting a model live that the gate did not pass: by name, with a reason, and on record for good.

The record stands in four places, none of which is ever rewritten without it: the version's manifest
in the registry, the registry's history, the gate's decision in ML Metadata, and the run.
"""

import datetime
import json
from pathlib import Path

from components.decisions import read_decision
from evaluation.outcome import Decision, Outcome
from pipeline import lineage, metadata, versions
from pipeline.config import PipelineConfig
from pipeline.lineage import ArtifactRef
from pipeline.runs import Override, RunFolder, RunRecord
from pipeline.workspace import Workspace
from registry import manifest
from registry.interface import Version
from schema import places
from schema.errors import CortexflowError
from serving import probe

SERVING = "Format-Serving"


class OverrideRefused(CortexflowError):
    """This run's model cannot be put live by anybody's word."""


def check(config: PipelineConfig, workspace: Workspace, record: RunRecord) -> Decision:
    """The decision that would be overridden.

    Raises:
        OverrideRefused: no model of the run was judged, it passed, it was overridden already, or it
            failed a check that nobody may lift (`details["final"]`: a leaking split, NaN).
    """
    decision, _, _ = _found(config, workspace, record)
    return decision


def override(
    config: PipelineConfig, workspace: Workspace, folder: RunFolder, *, who: str, reason: str
) -> tuple[RunRecord, Version]:
    """Pushes the student of a run that was refused, or for which the evidence did not suffice.

    Args:
        config: the run's settings.
        workspace: where the run kept its things.
        folder: the run's.
        who: the person who answers for it.
        reason: why; not empty.

    Returns:
        The run's record with the override, and the version, which is live.

    Raises:
        OverrideRefused: as `check`; or name or reason are empty; or the model is a version already,
            or was changed after it was judged.
        ModelRefused: the model, of a run without a serving check, must not be served.
        RegistryError: the version cannot be pushed.
    """
    who, reason = who.strip(), reason.strip()
    if not who or not reason:
        raise OverrideRefused("An override needs a name and a reason. Give --who and --reason.")
    record = folder.read()
    decision, student, artifact = _found(config, workspace, record)
    registry = versions.registry(config, workspace)
    made = Override(who=who, reason=reason, time=datetime.datetime.now(datetime.UTC))
    document = made.model_dump(mode="json")
    told = f"override: {reason}"
    with places.fetched(places.below(student.uri, SERVING)) as model:
        _servable(config, decision, model)
        # First the word, then the deed: a push that is interrupted leaves an override without
        # effect, never an effect without its override.
        database = metadata.database(config, workspace)
        lineage.annotate(database, artifact.id, {"override": json.dumps(document)})
        version = registry.push(
            model,
            metrics=decision.metrics,
            lineage={
                "model_uri": student.uri,
                "artifact_id": student.id,
                "classes": _classes(student),
                "run_id": record.id,
                "override": document
                | {"outcome": decision.outcome, "reasons": [*decision.reasons]},
            },
            reason=told,
            who=who,
            make_live=False,
        )
    if "override" not in version.lineage:
        raise OverrideRefused(
            f"The very same model is version {version.number} already, which was not pushed by an "
            f"override, so its manifest would not show this one. Nothing was made live. To use it: "
            f"cortexflow promote {version.number}"
        )
    registry.promote(version.number, reason=told, who=who)
    record = record.model_copy(
        update={
            "override": made,
            "pushed_version": version.number,
            "live_version": version.number,
        }
    )
    folder.write(record)
    return record, version


def _found(
    config: PipelineConfig, workspace: Workspace, record: RunRecord
) -> tuple[Decision, ArtifactRef, ArtifactRef]:
    """Decision, student, and the decision's artifact, of a run that may be overridden."""
    nodes = lineage.outputs_of_nodes(metadata.database(config, workspace), record.nodes)

    def of(node: str, key: str) -> ArtifactRef:
        for artifact in nodes.get(node, ()):
            if artifact.key == key:
                return artifact
        raise OverrideRefused(
            f"Run {record.id} ended before a model was judged ({record.status}): there is nothing "
            "to override. What is wrong with the data has to be mended."
        )

    student, artifact = of("Student", "model"), of("ModelGate", "decision")
    decision = read_decision(artifact.uri)
    if decision.outcome is Outcome.PASSED:
        raise OverrideRefused(
            f"The model of run {record.id} passed: there is nothing to override. To make an "
            "earlier version live: `cortexflow promote`."
        )
    if record.override is not None:
        raise OverrideRefused(
            f"Run {record.id} was overridden already, by {record.override.who} at "
            f"{record.override.time:%Y-%m-%d %H:%M}, as version {record.pushed_version}."
        )
    final = {check.name: check for check in decision.checks if not check.passed}
    lasting = [final[name] for name in decision.details.get("final", ()) if name in final]
    if lasting:
        raise OverrideRefused(
            f"Nobody's word lifts this: {'; '.join(check.detail for check in lasting)}."
        )
    return decision, student, artifact


def _servable(config: PipelineConfig, decision: Decision, folder: Path) -> None:
    """Raises unless the folder holds what the serving check tried out; tries it where none did."""
    content = decision.details.get("content")
    if not content:
        probe.require(folder, config.serving)
    elif content != manifest.content_digest(manifest.inventory(folder)):
        raise OverrideRefused(
            f"The files in {folder} are not those that were judged. Nobody's word covers what was "
            "never tried out: run again."
        )


def _classes(student: ArtifactRef) -> list[str]:
    described = json.loads(places.read_bytes(places.below(student.uri, "bundle", "model.json")))
    return list(described["classes"])
