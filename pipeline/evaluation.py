"""What the Evaluator (TFMA) measures: metrics per class, averaged, and per site."""

from collections.abc import Sequence

import numpy as np
import tensorflow_model_analysis as tfma
from google.protobuf import text_format

from schema.features import LABEL, SITE
from trainer import metrics


def eval_config(classes: Sequence[str]) -> tfma.EvalConfig:
    """Builds TFMA's config for a softmax over `classes`.

    Plain `AUC` on a softmax is micro one-vs-rest, which a constant predictor scores .78 on in the
    public set; the macro average and each class by itself are asked for beside it. Precision,
    recall and F1 follow from the confusion matrix (`measured`): TFMA's own, once binarized, hold
    each class against .5 instead of against the other classes. No thresholds: the gate is ours,
    on subjects (components/model_gate.py).
    """
    ids = ", ".join(str(index) for index in range(len(classes)))
    weights = "\n".join(
        f"class_weights {{ key: {index} value: 1.0 }}" for index in range(len(classes))
    )
    return text_format.Parse(
        f"""
        model_specs {{
          signature_name: "serving_default"
          prediction_key: "probabilities"
          label_key: "{LABEL}"
        }}
        slicing_specs {{}}
        slicing_specs {{ feature_keys: ["{SITE}"] }}
        metrics_specs {{
          metrics {{ class_name: "ExampleCount" }}
          metrics {{ class_name: "SparseCategoricalAccuracy" }}
          metrics {{
            class_name: "MultiClassConfusionMatrixAtThresholds"
            config: '"thresholds": [0.0]'
          }}
          metrics {{ class_name: "AUC" config: '"name": "micro_auc"' }}
        }}
        metrics_specs {{
          binarize {{ class_ids: {{ values: [{ids}] }} }}
          metrics {{ class_name: "AUC" }}
          metrics {{ class_name: "AUCPrecisionRecall" }}
        }}
        metrics_specs {{
          aggregate {{ macro_average: true {weights} }}
          metrics {{ class_name: "AUC" config: '"name": "macro_auc"' }}
        }}
        """,
        tfma.EvalConfig(),
    )


def measured(uri: str) -> dict[str, float]:
    """Reads the candidate's metrics from an Evaluator's output.

    Args:
        uri: folder of a `ModelEvaluation` artifact.

    Returns:
        Metric name → value: `macro_auc`, `auc/0` for class 0, `macro_auc@site:x` for a slice.
    """
    found: dict[str, float] = {}
    for slice_metrics in tfma.load_metrics(uri):
        keys = slice_metrics.slice_key.single_slice_keys
        where = "".join(f"@{key.column}:{key.bytes_value.decode()}" for key in keys)
        for item in slice_metrics.metric_keys_and_values:
            if item.key.model_name not in ("", tfma.CANDIDATE_KEY) or item.key.is_diff:
                continue
            kind = item.value.WhichOneof("type")
            if kind == "double_value":
                sub = item.key.sub_key
                suffix = f"/{sub.class_id.value}" if sub.HasField("class_id") else ""
                found[item.key.name + suffix + where] = item.value.double_value.value
            elif kind == "multi_class_confusion_matrix_at_thresholds":
                [matrix] = item.value.multi_class_confusion_matrix_at_thresholds.matrices
                rates = _rates(matrix)
                found |= {name + where: value for name, value in rates.items()}
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
