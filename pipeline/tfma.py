"""What the Evaluator (TFMA) measures: metrics per class and averaged, by site and by slice band."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_model_analysis as tfma
from google.protobuf import text_format

from schema.features import LABEL, SITE, SLICE_INDEX
from trainer import metrics

BAND = "slice_band"
# By names of ours; each is `metrics.summary`'s of the same name, on the same predictions.
_NAMES = {
    "sparse_categorical_accuracy": "accuracy",
    "sparse_categorical_crossentropy": "log_loss",
    "example_count": "examples",
}
_AVERAGED = {"auc": "macro_auc", "average_precision": "macro_average_precision"}


def eval_config(
    classes: Sequence[str], bands: Mapping[str, tuple[int, int]] | None = None
) -> tfma.EvalConfig:
    """Builds TFMA's config for a softmax over `classes`.

    Every metric is the one of `trainer.metrics`. Where TFMA's own is another, it is not asked for:
    its AUC and PR area (pipeline/tfma_ranking.py says why); its precision, recall, F1 and balanced
    accuracy, which once binarized hold each class against .5 instead of against the other classes,
    so that they are read from the confusion matrix of answers; its macro average, which is
    not defined where one class is absent; its CategoricalCrossEntropy, which takes a label for a
    weight. A plain AUC on a softmax is micro one-vs-rest, which a constant predictor scores .78 on
    in the public set. No thresholds: the gate is ours, on subjects (components/model_gate.py).

    Args:
        classes: class names by label.
        bands: name → first and last slice index of a part of the stack, for slices by `slice_band`.
            None for data of which any example lacks `slice_index`: TFMA's SQL fails there.
    """
    ids = ", ".join(str(index) for index in range(len(classes)))
    return text_format.Parse(
        f"""
        model_specs {{
          signature_name: "serving_default"
          prediction_key: "probabilities"
          label_key: "{LABEL}"
        }}
        slicing_specs {{}}
        slicing_specs {{ feature_keys: ["{SITE}"] }}
        {_slicing(bands) if bands else ""}
        metrics_specs {{
          metrics {{ class_name: "ExampleCount" }}
          metrics {{ class_name: "SparseCategoricalAccuracy" }}
          metrics {{ class_name: "SparseCategoricalCrossentropy" }}
          metrics {{
            class_name: "MultiClassConfusionMatrixAtThresholds"
            config: '"thresholds": [0.0]'
          }}
          metrics {{
            class_name: "ExactAUC" module: "pipeline.tfma_ranking" config: '"name": "micro_auc"'
          }}
        }}
        metrics_specs {{
          binarize {{ class_ids: {{ values: [{ids}] }} }}
          metrics {{ class_name: "ExactAUC" module: "pipeline.tfma_ranking" }}
          metrics {{ class_name: "AveragePrecision" module: "pipeline.tfma_ranking" }}
          metrics {{ class_name: "MeanSquaredError" config: '"name": "squared_error"' }}
        }}
        """,
        tfma.EvalConfig(),
    )


def _slicing(bands: Mapping[str, tuple[int, int]]) -> str:
    index = f"example.{SLICE_INDEX}[SAFE_OFFSET(0)]"
    cases = " ".join(
        f"WHEN {index} BETWEEN {first} AND {last} THEN '{name}'"
        for name, (first, last) in bands.items()
    )
    query = f"SELECT STRUCT(CASE {cases} ELSE 'other' END AS {BAND})"
    return f'slicing_specs {{ slice_keys_sql: "{query}" }}'


def measured(uri: str) -> dict[str, float]:
    """Reads the candidate's metrics from an Evaluator's output.

    Args:
        uri: folder of a `ModelEvaluation` artifact.

    Returns:
        Metric name → value, names as in `metrics.summary`: `macro_auc`, `auc/0` for class 0,
        `macro_auc@site:x` for a slice. Macro averages are over the classes that are present; what
        the data cannot give is NaN.
    """
    found: dict[str, float] = {}
    for slice_metrics in tfma.load_metrics(uri):
        keys = slice_metrics.slice_key.single_slice_keys
        where = "".join(f"@{key.column}:{key.bytes_value.decode()}" for key in keys)
        plain = _of_slice(slice_metrics.metric_keys_and_values)
        found |= {name + where: value for name, value in plain.items()}
    return found


def _of_slice(items) -> dict[str, float]:
    found: dict[str, float] = {}
    by_class: dict[str, list[float]] = {}
    for item in items:
        if item.key.model_name not in ("", tfma.CANDIDATE_KEY) or item.key.is_diff:
            continue
        kind = item.value.WhichOneof("type")
        if kind == "double_value":
            name, value = item.key.name, item.value.double_value.value
            if item.key.sub_key.HasField("class_id"):
                by_class.setdefault(name, []).append(value)
                name = f"{name}/{item.key.sub_key.class_id.value}"
            found[_NAMES.get(name, name)] = value
        elif kind == "multi_class_confusion_matrix_at_thresholds":
            [matrix] = item.value.multi_class_confusion_matrix_at_thresholds.matrices
            found |= _rates(matrix)
    for name, macro in _AVERAGED.items():
        values = np.array(by_class.get(name, []))
        known = values[~np.isnan(values)]
        found[macro] = float(known.mean()) if known.size else float("nan")
    if "squared_error" in by_class:  # of each class against the rest; their sum is Brier's
        found = {name: found[name] for name in found if not name.startswith("squared_error/")}
        found["brier"] = float(np.sum(by_class["squared_error"]))
    return found


def _rates(matrix) -> dict[str, float]:
    """Precision, recall and F1, per class and averaged, from one confusion matrix of answers."""
    counts = [round(entry.num_weighted_examples) for entry in matrix.entries]
    labels = np.repeat([entry.actual_class_id for entry in matrix.entries], counts)
    predicted = np.repeat([entry.predicted_class_id for entry in matrix.entries], counts)
    answers = np.eye(1 + max(labels.max(), predicted.max()))[predicted]
    rates = {
        "balanced_accuracy": metrics.balanced_accuracy(answers, labels),
        "macro_f1": metrics.macro_f1(answers, labels),
    }
    of_classes = zip(*metrics.precision_recall_f1(answers, labels), strict=True)
    for index, (precision, recall, f1) in enumerate(of_classes):
        rates |= {f"precision/{index}": precision, f"recall/{index}": recall, f"f1/{index}": f1}
    return {name: float(value) for name, value in rates.items()}
