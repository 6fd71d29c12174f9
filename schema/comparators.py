"""The schema's comparators: TFDV's own distances between two sets of statistics.

`drift_comparator` holds the newest span against earlier ones, `skew_comparator` evaluation data
against training data. ExampleValidator evaluates neither, for it is never given anything to compare
with. TFDV counts every image alike and knows no chance, so these thresholds are wide (README.md);
the gate that knows both is evaluation/drift.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_metadata.proto.v0.schema_pb2 import FeatureComparator, Schema
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList

from schema import features

Kind = Literal["drift", "skew"]


@dataclasses.dataclass(frozen=True)
class Distance:
    """One comparator's answer.

    Attributes:
        feature: its name in the examples.
        measure: `JENSEN_SHANNON_DIVERGENCE` or `L_INFTY`.
        value: the distance, 0 to 1.
        threshold: of the schema; above it the comparator fires.
    """

    feature: str
    measure: str
    value: float
    threshold: float

    def __str__(self) -> str:
        """Feature, distance and threshold."""
        measure = "divergence" if self.measure.startswith("JENSEN") else "largest difference"
        sign = ">" if self.fired else "≤"
        return f"{self.feature} ({measure} {self.value:.3f} {sign} {self.threshold:.3f})"

    @property
    def fired(self) -> bool:
        """Whether the distance is above its threshold."""
        return self.value > self.threshold


def statistics_of(columns: Mapping[str, np.ndarray]) -> DatasetFeatureStatisticsList:
    """TFDV statistics of columns: text, int64 or float, one value per example; "" is missing.

    The label is counted as categories: as numbers, TFDV's L-infinity distance of it is 0.
    """
    import pyarrow as pa
    from tensorflow_data_validation.statistics.stats_impl import (
        generate_statistics_in_memory,
    )
    from tensorflow_data_validation.statistics.stats_options import StatsOptions

    arrays = {}
    for name, values in columns.items():
        if values.dtype.kind in "UO":
            cells = [[text.encode()] if text else None for text in values.tolist()]
            arrays[name] = pa.array(cells, pa.large_list(pa.large_binary()))
        else:
            kind = pa.int64() if values.dtype.kind == "i" else pa.float32()
            arrays[name] = pa.array(values[:, None].tolist(), pa.large_list(kind))
    label = schema_pb2.Schema()
    label.feature.add(name=features.LABEL, type=schema_pb2.INT).int_domain.is_categorical = True
    batch = pa.RecordBatch.from_arrays(list(arrays.values()), list(arrays))
    return generate_statistics_in_memory(batch, StatsOptions(schema=label))


def distances(
    reference: DatasetFeatureStatisticsList,
    current: DatasetFeatureStatisticsList,
    schema: Schema,
    kind: Kind,
) -> list[Distance]:
    """Evaluates the drift or skew comparators of a schema, as TFDV does.

    Args:
        reference: of the earlier spans (drift) or of the training data (skew).
        current: of the newest span (drift) or of the evaluation data (skew).
        schema: the contract; features without a comparator are not compared.
        kind: which comparators.

    Returns:
        One distance per feature that has a comparator and stands in both, in the schema's order.
    """
    from tensorflow_data_validation import validate_statistics

    wanted = Schema()
    for feature in schema.feature:
        if _comparator(feature, kind) is not None:
            wanted.feature.add().CopyFrom(feature)
    if kind == "drift":
        found = validate_statistics(current, wanted, previous_statistics=reference)
    else:
        found = validate_statistics(reference, wanted, serving_statistics=current)
    measured = {}
    for info in found.drift_skew_info:
        entries = info.drift_measurements if kind == "drift" else info.skew_measurements
        for entry in entries:
            measure = type(entry).Type.Name(entry.type)
            measured[info.path.step[0]] = Distance(
                info.path.step[0], measure, entry.value, entry.threshold
            )
    return [measured[f.name] for f in wanted.feature if f.name in measured]


def _comparator(feature: schema_pb2.Feature, kind: Kind) -> FeatureComparator | None:
    field = f"{kind}_comparator"
    return getattr(feature, field) if feature.HasField(field) else None
