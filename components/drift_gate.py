"""DriftGate: are the newest span's people like those before, and the tested like the trained-on?

Asked of descriptors, labels and sites, by person (evaluation/drift.py), at the chance of a false
alarm that the settings give; and beside it of the schema's comparators, as TFDV evaluates them. The
statistics for these are taken here: StatisticsGen mixes the spans, and without a schema it counts
labels as numbers, of which TFDV's L-infinity distance is 0.
"""

import dataclasses
import gzip
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tensorflow_metadata.proto.v0.schema_pb2 import Schema as SchemaProto
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples, Schema

from components.artifacts import DataDecision
from components.decisions import write_decision
from components.drift_columns import KEYS, read_split, span_number
from evaluation.columns import Columns, grouped, joined
from evaluation.config import DriftSettings
from evaluation.drift import Comparison, compare
from evaluation.outcome import Check, Decision, Outcome, concluded
from schema import comparators, features
from schema.comparators import Distance, Kind

FILE = "drift.json"
TRAIN, VAL, TEST = features.SPLITS


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Two groups of images to be compared.

    Attributes:
        names: of reference and current.
        reference, current: their images.
        kind: `drift` of a span against earlier ones, `skew` of evaluation against training data.
        refuses: whether drift here is a reason to stop; else it is told.
    """

    names: tuple[str, str]
    reference: Columns
    current: Columns
    kind: Kind
    refuses: bool


def between_spans(columns: Columns, settings: DriftSettings) -> list[Contrast]:
    """The newest span with all before it; nothing where there is one. Unplaced images are left out.

    Args:
        columns: labelled images of all spans.
        settings: whether drift refuses.
    """
    spans = sorted(set(columns.spans.tolist()) - {""}, key=span_number)
    if len(spans) < 2:
        return []
    old, new = (columns.select(np.isin(columns.spans, names)) for names in (spans[:-1], spans[-1:]))
    names = (", ".join(spans[:-1]), spans[-1])
    return [Contrast(names, old, new, "drift", settings.on_drift == "refuse")]


def between_splits(columns: Columns, settings: DriftSettings, *, leaked: bool) -> list[Contrast]:
    """Test with train, and val with train, as far as there are any.

    Args:
        columns: labelled images of what is trained and evaluated on.
        settings: whether drift refuses.
        leaked: the split is known to share people. It was asked for as it is, shifts and all, so
            its sides are compared for the record only.
    """
    stops = settings.on_drift == "refuse" and not leaked
    found = []
    for split in (TEST, VAL):
        sides = [columns.select(columns.splits == name) for name in (TRAIN, split)]
        if all(map(len, sides)):
            found.append(Contrast((TRAIN, split), *sides, "skew", stops))
    return found


def judge(
    asked: Sequence[Contrast],
    classes: Sequence[str],
    schema: SchemaProto,
    settings: DriftSettings,
) -> tuple[Decision, dict[str, Any]]:
    """Compares, and decides.

    Args:
        asked: the comparisons.
        classes: class names by label.
        schema: its comparators are evaluated where there are people enough.
        settings: of the comparisons; `level` is shared out among them, so that it is the chance
            of any false alarm in a run (Bonferroni).

    Returns:
        The decision, and `drift.json`: settings, and for each comparison its fields as in
        `evaluation.drift.Comparison`, `kind`, `refuses`, and the comparators' distances.
    """
    checks, told = [], []
    shared = settings.model_copy(update={"level": settings.level / max(len(asked), 1)})
    for contrast in asked:
        pair = grouped(contrast.reference, contrast.current, contrast.names, classes)
        comparison = compare(*pair, shared)
        fixed = []
        if comparison.outcome is not Outcome.INSUFFICIENT:
            fixed = _distances(contrast, schema)
        checks.append(_check(comparison, contrast))
        checks += _comparator_checks(fixed, contrast)
        told.append(
            {
                **dataclasses.asdict(comparison),
                "kind": contrast.kind,
                "refuses": contrast.refuses,
                "comparators": [
                    {**dataclasses.asdict(distance), "fired": distance.fired} for distance in fixed
                ],
            }
        )
    if not asked:
        checks.append(
            Check(
                "drift",
                Outcome.INSUFFICIENT,
                detail="insufficient data: there is one span and no val or test split, so nothing "
                "to compare. This is not a finding of no drift",
            )
        )
    details = {
        "comparisons": [
            {
                "reference": entry["reference"],
                "current": entry["current"],
                "outcome": entry["outcome"],
                "people": entry["people"],
                "drifted": [feature["name"] for feature in entry["features"] if feature["drifted"]],
            }
            for entry in told
        ]
    }
    table = {"settings": settings.model_dump(), "comparisons": told}
    return concluded(checks, details=details), table


def _check(comparison: Comparison, contrast: Contrast) -> Check:
    """One comparison by people; its number is the divergence that chance explains least."""
    name = f"{comparison.current} against {comparison.reference}"
    least = min(comparison.features, key=lambda feature: feature.p, default=None)
    outcome, detail = comparison.outcome, comparison.reason
    if outcome is Outcome.REFUSED and not contrast.refuses:
        outcome, detail = Outcome.PASSED, f"DRIFT, reported only: {detail}"
    return Check(
        name,
        outcome,
        value=least.divergence if least else None,
        bound=least.seen_from if least else None,
        detail=detail,
    )


def _comparator_checks(fixed: Sequence[Distance], contrast: Contrast) -> list[Check]:
    if not fixed:
        return []
    reference, current = contrast.names
    name = f"comparators of the schema, {current} against {reference}"
    fired = [distance for distance in fixed if distance.fired]
    if not fired:
        widest = max(fixed, key=lambda distance: distance.value / max(distance.threshold, 1e-9))
        note = f"{len(fixed)} kept; nearest to its threshold: {widest}"
        return [Check(name, Outcome.PASSED, widest.value, widest.threshold, detail=note)]
    worst = max(fired, key=lambda distance: distance.value - distance.threshold)
    detail = (
        f"{current} against {reference}: schema {contrast.kind}_comparator fired: "
        + ", ".join(map(str, fired))
    )
    if not contrast.refuses:
        return [
            Check(
                name,
                Outcome.PASSED,
                worst.value,
                worst.threshold,
                detail=f"FIRED, reported only: {detail}",
            )
        ]
    return [Check(name, Outcome.REFUSED, worst.value, worst.threshold, detail=detail)]


def _distances(contrast: Contrast, schema: SchemaProto) -> list[Distance]:
    one, other = (
        comparators.statistics_of(
            {
                features.LABEL: side.labels,
                features.SITE: side.sites,
                **dict(zip(KEYS, side.described.values(), strict=True)),
            }
        )
        for side in (contrast.reference, contrast.current)
    )
    return comparators.distances(one, other, schema, contrast.kind)


def spans_of(dataset: str) -> dict[str, dict[str, set[str]]]:
    """Reads the manifests of a dataset: span → split → digests of its sources.

    Args:
        dataset: local or remote folder; one without spans gives nothing.
    """
    found: dict[str, dict[str, set[str]]] = {}
    for file in fileio.glob(os.path.join(dataset, "span-*", "manifest.jsonl.gz")):
        span = os.path.basename(os.path.dirname(file))
        with fileio.open(file, "rb") as opened:
            lines = gzip.decompress(opened.read()).decode().splitlines()
        splits = found.setdefault(span, {})
        for row in map(json.loads, lines):
            splits.setdefault(row["file"].split("/")[0], set()).add(row["source_sha256"])
    return found


def placed(columns: Columns, spans: Mapping[str, Mapping[str, set[str]]]) -> Columns:
    """Says of each image which span it is of; "" where no manifest lists it."""
    span_by_digest = {
        digest: span
        for span, splits in spans.items()
        for held in splits.values()
        for digest in held
    }
    names = [span_by_digest.get(digest, "") for digest in columns.sha256.tolist()]
    return dataclasses.replace(columns, spans=np.array(names, str))


def earlier(columns: Columns, spans: Mapping[str, Mapping[str, set[str]]], dataset: str) -> Columns:
    """Reads the labelled images of spans that the examples do not hold (`data.spans=latest`)."""
    held = set(columns.spans.tolist())
    return joined(
        [
            read_split(os.path.join(dataset, span, split, "data-*"), split, span, described=False)
            for span in sorted(set(spans) - held, key=span_number)
            for split in features.SPLITS
            if split in spans[span]
        ]
    )


@component
def DriftGate(  # noqa: N802 (a TFX node is named as a class)
    examples: InputArtifact[Examples],
    schema: InputArtifact[Schema],
    decision: OutputArtifact[DataDecision],
    dataset: Parameter[str],
    classes: Parameter[str],
    leaked: Parameter[int],
    settings: Parameter[str],
    code: Parameter[str],
):
    """TFX node: publishes `decision.json` and `drift.json`.

    `dataset` is the folder of spans; `classes` names joined by commas; `settings` a DriftSettings
    as JSON; `code` the hash of this code, in every gate: an edited gate must decide again.
    """
    wanted = DriftSettings.model_validate_json(settings)
    splits = artifact_utils.decode_split_names(examples.split_names)
    columns = joined(
        [
            read_split(
                os.path.join(artifact_utils.get_split_uri([examples], split), "*"),
                split,
                described=True,
            )
            for split in splits
            if split in features.SPLITS
        ]
    )
    spans = spans_of(dataset)
    columns = placed(columns, spans)
    # Spans are compared with those, too, that are not trained on; splits as they are trained on.
    asked = between_spans(joined([earlier(columns, spans, dataset), columns]), wanted)
    asked += between_splits(columns, wanted, leaked=bool(leaked))
    verdict, table = judge(asked, classes.split(","), _schema(schema), wanted)
    with fileio.open(os.path.join(decision.uri, FILE), "w") as file:
        file.write(json.dumps(table, indent=1, allow_nan=False))
    write_decision(verdict, decision.uri)


def _schema(artifact: Schema) -> SchemaProto:
    from google.protobuf import text_format

    with fileio.open(os.path.join(artifact.uri, "schema.pbtxt"), "r") as file:
        return text_format.Parse(file.read(), SchemaProto())
