"""What the Evaluator (TFMA) measured, by the names of `trainer.metrics`."""

import numpy as np
import tensorflow_model_analysis as tfma

from trainer import metrics

# By names of ours; each is `metrics.summary`'s of the same name, on the same predictions.
_NAMES = {
    "sparse_categorical_accuracy": "accuracy",
    "sparse_categorical_crossentropy": "log_loss",
    "example_count": "examples",
}
_AVERAGED = {"auc": "macro_auc", "average_precision": "macro_average_precision"}


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
