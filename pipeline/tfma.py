"""What the Evaluator (TFMA) measures: metrics per class and averaged, by site and by slice band."""

from collections.abc import Mapping, Sequence

import tensorflow_model_analysis as tfma
from google.protobuf import text_format

from schema.features import LABEL, SITE, SLICE_INDEX

BAND = "slice_band"


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
