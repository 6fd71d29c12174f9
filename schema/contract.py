"""The data contract as a TFMD schema: load it, infer a draft, compare two, hold data against one.

The curated schema stands in git (`schema.pbtxt`, reasons in README.md); an inferred one is a draft
to be read by a person. TFDV's own inference is mended in two places: it makes a bool of `depth`
because it is always 1, and it lists every subject as a legal value of `subject_id`.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_metadata.proto.v0.schema_pb2 import Feature, Schema
from tensorflow_metadata.proto.v0.statistics_pb2 import (
    DatasetFeatureStatisticsList,
    FeatureNameStatistics,
)

from schema import features, statistics
from schema.errors import CortexflowError

CURATED = Path(__file__).with_name("schema.pbtxt")
ENVIRONMENTS = ("TRAINING", "SERVING")
MARGIN = 0.5  # of the observed range: how far a drafted bound lies beyond what was seen
IDENTITIES = (features.IMAGE, features.SUBJECT_ID, features.SOURCE_SHA256)


@dataclasses.dataclass(frozen=True)
class Change:
    """One difference between two schemas; `None` stands for absent."""

    feature: str
    field: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        """The change in one line."""
        place = f"{self.feature}: {self.field}" if self.field else self.feature
        if self.before is None:
            return f"+ {place}" + (f" = {self.after}" if self.field else "")
        if self.after is None:
            return f"- {place}" + (f" = {self.before}" if self.field else "")
        return f"~ {place}: {self.before} → {self.after}"


@dataclasses.dataclass(frozen=True)
class Anomaly:
    """One way in which data break the contract."""

    split: str
    feature: str
    reason: str
    description: str


def load(path: Path = CURATED) -> Schema:
    """Reads a schema in text form. Loads no TensorFlow.

    Raises:
        CortexflowError: there is no such file, or it is no schema; names line and column.
    """
    if path.is_dir() or not path.exists():
        raise CortexflowError(_nothing_at(path))
    try:
        return text_format.Parse(path.read_text(), schema_pb2.Schema())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise CortexflowError(
            f"{path} is no schema: {error}. Give a .pbtxt that `cortexflow schema infer` wrote."
        ) from error


def _nothing_at(path: Path) -> str:
    """What to say of a folder, or of a name that is mistyped."""
    if path.is_dir():
        found = sorted(file.name for file in path.glob("*.pbtxt"))
        inside = f"It holds {', '.join(found)}: give" if found else "Give"
        return f"{path} is a folder, no schema. {inside} the .pbtxt itself."
    near = difflib.get_close_matches(path.name, _names_beside(path), n=1)
    meant = f"did you mean {path.with_name(near[0])}?" if near else "check the path."
    return f"There is no schema {path}: {meant}"


def _names_beside(path: Path) -> list[str]:
    folder = path.parent
    return [file.name for file in folder.glob("*.pbtxt")] if folder.is_dir() else []


def render(schema: Schema) -> str:
    """Writes a schema as text, as `load` reads it."""
    return text_format.MessageToString(schema)


def infer(source: Path | Mapping[str, DatasetFeatureStatisticsList]) -> Schema:
    """Drafts a schema from data.

    Types, presence and shapes are TFDV's. Numeric bounds are the observed range widened by half of
    itself on each side, not below 0 where nothing negative was seen; labels are the observed
    categories.

    Args:
        source: what `statistics.read` reads, or its answer.

    Returns:
        The draft.
    """
    import tensorflow_data_validation as tfdv

    splits = statistics.read(source) if isinstance(source, Path) else source
    first, *rest = splits.values()
    schema = tfdv.infer_schema(first, infer_feature_shape=True)
    for other in rest:
        schema = tfdv.update_schema(schema, other, infer_feature_shape=True)
    observed: dict[str, list[FeatureNameStatistics]] = {}
    for split in splits.values():
        for entry in split.datasets[0].features:
            observed.setdefault(entry.path.step[0], []).append(entry)
    for feature in schema.feature:
        _mend(feature, observed[feature.name])
    used = {feature.domain for feature in schema.feature if feature.HasField("domain")}
    kept = [domain for domain in schema.string_domain if domain.name in used]
    del schema.string_domain[:]
    schema.string_domain.extend(kept)
    return schema


def _mend(feature: Feature, observed: list[FeatureNameStatistics]) -> None:
    """Gives a drafted feature the domain that its kind calls for."""
    if feature.type == schema_pb2.BYTES:
        if feature.name in IDENTITIES:
            feature.ClearField("domain")
        return
    values = [value for entry in observed for value in _range(entry)]
    if not values:
        return
    low, high = min(values), max(values)
    feature.ClearField("domain")
    if feature.name == features.LABEL:
        feature.int_domain.min, feature.int_domain.max = int(low), int(high)
        feature.int_domain.is_categorical = True
        return
    margin = MARGIN * (high - low)
    low, high = (max(low - margin, 0.0) if low >= 0 else low - margin), high + margin
    if feature.type == schema_pb2.INT:
        feature.int_domain.min, feature.int_domain.max = math.floor(low), math.ceil(high)
    elif feature.type == schema_pb2.FLOAT:
        feature.float_domain.min, feature.float_domain.max = low, high
        feature.float_domain.disallow_nan = feature.float_domain.disallow_inf = True


def _range(entry: FeatureNameStatistics) -> list[float]:
    """Least and greatest value, whether they were counted as numbers or as categories."""
    if entry.HasField("num_stats"):
        return [entry.num_stats.min, entry.num_stats.max]
    buckets = entry.string_stats.rank_histogram.buckets
    return [float(bucket.label) for bucket in buckets] if entry.type == entry.INT else []


def diff(before: Schema, after: Schema) -> list[Change]:
    """Lists the differences of two schemas, feature by feature. Loads no TensorFlow.

    Order of features and of environments does not matter. A field of a repeated message is named
    by its position (`shape.dim.0.size`).
    """
    one, other = _by_feature(before), _by_feature(after)
    changes = []
    for name in sorted(one.keys() | other.keys()):
        if name not in other:
            changes.append(Change(name, "", "present", None))
        elif name not in one:
            changes.append(Change(name, "", None, "present"))
        else:
            fields = sorted(one[name].keys() | other[name].keys())
            pairs = [(field, one[name].get(field), other[name].get(field)) for field in fields]
            changes += [Change(name, field, a, b) for field, a, b in pairs if a != b]
    return changes


def _by_feature(schema: Schema) -> dict[str, dict[str, str]]:
    named = {feature.name: dict(_flat(feature)) for feature in schema.feature}
    whole = type(schema)()
    whole.CopyFrom(schema)
    del whole.feature[:]
    return named | {"(schema)": dict(_flat(whole))}


def _flat(message: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        path = prefix + field.name
        repeated = field.label == field.LABEL_REPEATED
        if field.message_type is None:
            yield path, ", ".join(sorted(map(str, value))) if repeated else _text(field, value)
            continue
        entries = enumerate(value) if repeated else [("", value)]
        for position, entry in entries:
            place = f"{path}.{position}" if repeated else path
            inner = list(_flat(entry, place + "."))
            yield from inner or [(place, "present")]


def _text(field: Any, value: Any) -> str:
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def validate(
    observed: DatasetFeatureStatisticsList | Mapping[str, DatasetFeatureStatisticsList],
    schema: Schema,
    environment: str = "TRAINING",
) -> list[Anomaly]:
    """Holds statistics against a schema, as ExampleValidator does.

    Args:
        observed: statistics, or split → statistics.
        schema: the contract.
        environment: `TRAINING` or `SERVING`.

    Returns:
        What is wrong, ordered by split and feature; empty when the data keep the contract.

    Raises:
        CortexflowError: the schema has no such environment.
    """
    import tensorflow_data_validation as tfdv

    known = [*schema.default_environment]
    if known and environment not in known:
        raise CortexflowError(
            f"The schema has no environment {environment} (has: {', '.join(known)})."
        )
    splits = observed if isinstance(observed, Mapping) else {"": observed}
    anomalies = []
    for split, stats in sorted(splits.items()):
        found = tfdv.validate_statistics(stats, schema, environment=environment if known else None)
        for feature, info in sorted(found.anomaly_info.items()):
            anomalies.append(Anomaly(split, feature, info.short_description, info.description))
        if found.HasField("dataset_anomaly_info"):
            info = found.dataset_anomaly_info
            anomalies.append(Anomaly(split, "", info.short_description, info.description))
    return anomalies
