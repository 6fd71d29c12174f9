"""What the Evaluator (TFMA) measures: metrics per class, averaged, and per site."""

from collections.abc import Sequence

import tensorflow_model_analysis as tfma
from google.protobuf import text_format

from schema.features import LABEL, SITE


def eval_config(classes: Sequence[str]) -> tfma.EvalConfig:
    """Builds TFMA's config for a softmax over `classes`.

    Plain `AUC` on a softmax is micro one-vs-rest, which a constant predictor scores .78 on in the
    public set; the macro average and each class by itself are asked for beside it. Macro recall is
    balanced accuracy. No thresholds: the gate is ours, on subjects (components/model_gate.py).
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
          metrics {{ class_name: "MultiClassConfusionMatrixPlot" }}
          metrics {{ class_name: "AUC" config: '"name": "micro_auc"' }}
        }}
        metrics_specs {{
          binarize {{ class_ids: {{ values: [{ids}] }} }}
          metrics {{ class_name: "AUC" }}
          metrics {{ class_name: "AUCPrecisionRecall" }}
          metrics {{ class_name: "Precision" }}
          metrics {{ class_name: "Recall" }}
          metrics {{ class_name: "F1Score" }}
        }}
        metrics_specs {{
          aggregate {{ macro_average: true {weights} }}
          metrics {{ class_name: "AUC" config: '"name": "macro_auc"' }}
          metrics {{ class_name: "Recall" config: '"name": "balanced_accuracy"' }}
          metrics {{ class_name: "Precision" config: '"name": "macro_precision"' }}
          metrics {{ class_name: "F1Score" config: '"name": "macro_f1"' }}
        }}
        """,
        tfma.EvalConfig(),
    )
