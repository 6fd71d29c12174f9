"""The Evaluator's numbers are ours, on the same predictions: TFMA runs for real."""

import numpy as np
import pytest

from schema.features import LABEL, SITE, SLICE_INDEX
from trainer import metrics

CLASSES = ("Mild", "Moderate", "Non", "VeryMild")
BANDS = {"lower": (0, 3), "upper": (4, 7)}
TOLERANCE = 1e-3
SIZE = 240


@pytest.fixture(scope="module")
def answers():
    """Labels, what is known of the images, and two sets of logits: modest and far too steep."""
    rng = np.random.default_rng(0)
    labels = rng.choice(4, SIZE, p=[0.2, 0.1, 0.4, 0.3])
    logits = rng.normal(size=(SIZE, 4)) + 1.2 * np.eye(4)[labels]
    # Nobody of class 1 at the second site: there, three classes are evaluable.
    sites = np.where((labels != 1) & (rng.random(SIZE) < 0.4), "b", "a")
    return {"labels": labels, "sites": sites, "index": rng.integers(0, 8, SIZE), "logits": logits}


STEEPNESS = (
    pytest.param(1.0, id="modest"),
    pytest.param(15.0, id="saturated", marks=pytest.mark.slow),
)


@pytest.fixture(scope="module", params=STEEPNESS)
def evaluated(request, answers, tmp_path_factory):
    """What TFMA and we say of the same probabilities, and TFMA's own AUC beside."""
    from google.protobuf import text_format

    from components.tfma_metrics import measured
    from pipeline.tfma import eval_config

    steep = request.param * answers["logits"]
    exponents = np.exp(steep - steep.max(axis=1, keepdims=True))
    table = (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)
    config = eval_config(CLASSES, BANDS)
    text_format.Merge(
        """metrics_specs {
          binarize { class_ids { values: [0, 1, 2, 3] } }
          metrics { class_name: "AUC" config: '"name": "bucketed_auc"' }
        }""",
        config,
    )
    folder = tmp_path_factory.mktemp("tfma")
    _run_tfma(config, folder, table, answers)
    return request.param, table.astype(np.float64), measured(str(folder / "out"))


def _run_tfma(config, folder, table, answers):
    import apache_beam as beam
    import tensorflow as tf
    import tensorflow_model_analysis as tfma
    from tfx_bsl.tfxio.tf_example_record import TFExampleRecord

    from pipeline.config import BEAM_IN_PROCESS

    class Answering(tf.Module):
        """Gives the probabilities that an example carries."""

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def serving_default(self, examples):
            wanted = {"answer": tf.io.FixedLenFeature([4], tf.float32)}
            return {"probabilities": tf.io.parse_example(examples, wanted)["answer"]}

    model = Answering()
    tf.saved_model.save(
        model, str(folder / "model"), signatures={"serving_default": model.serving_default}
    )
    with tf.io.TFRecordWriter(str(folder / "examples")) as writer:
        for row in range(SIZE):
            feature = {
                "answer": tf.train.Feature(float_list=tf.train.FloatList(value=table[row])),
                LABEL: _integer(answers["labels"][row]),
                SLICE_INDEX: _integer(answers["index"][row]),
                SITE: tf.train.Feature(
                    bytes_list=tf.train.BytesList(value=[answers["sites"][row].encode()])
                ),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())
    source = TFExampleRecord(
        str(folder / "examples"), raw_record_column_name=tfma.ARROW_INPUT_COLUMN
    )
    options = beam.options.pipeline_options.PipelineOptions(list(BEAM_IN_PROCESS))
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | source.BeamSource()
            | tfma.ExtractEvaluateAndWriteResults(
                eval_shared_model=tfma.default_eval_shared_model(
                    str(folder / "model"), eval_config=config
                ),
                eval_config=config,
                output_path=str(folder / "out"),
            )
        )


def _integer(value):
    import tensorflow as tf

    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def _ours(table, labels) -> dict[str, float]:
    """Our summary with the reader's names; what TFMA has no word for is left out."""
    flat = {}
    for name, value in metrics.summary(table, labels).items():
        if isinstance(value, list):
            if name in ("auc", "average_precision", "precision", "recall", "f1"):
                flat |= {f"{name}/{label}": number for label, number in enumerate(value)}
        elif name not in ("expected_calibration_error", "collapsed"):
            flat[name] = value
    return flat


def _parts(answers) -> dict[str, np.ndarray]:
    """The rows behind each suffix of the reader's names."""
    index = answers["index"]
    return {
        "": np.ones(SIZE, bool),
        **{f"@site:{site}": answers["sites"] == site for site in "ab"},
        **{
            f"@slice_band:{name}": (index >= first) & (index <= last)
            for name, (first, last) in BANDS.items()
        },
    }


def test_every_metric_that_both_have_agrees_on_every_slice(evaluated, answers):
    _, table, found = evaluated
    for where, rows in _parts(answers).items():
        ours = _ours(table[rows], answers["labels"][rows])
        theirs = {
            name.removesuffix(where): value
            for name, value in found.items()
            if name.endswith(where) and ("@" in name) == bool(where) and "bucketed" not in name
        }
        assert set(theirs) == set(ours), where
        for name, value in ours.items():
            assert theirs[name] == pytest.approx(value, abs=TOLERANCE, nan_ok=True), name + where


def test_a_class_that_a_site_does_not_have_is_left_out_there(evaluated):
    _, _, found = evaluated
    assert np.isnan(found["auc/1@site:b"])
    assert np.isnan(found["average_precision/1@site:b"])
    others = [found[f"auc/{label}@site:b"] for label in (0, 2, 3)]
    assert found["macro_auc@site:b"] == pytest.approx(np.mean(others))


def test_why_the_auc_is_not_tfmas_own(evaluated, answers):
    """It counts in 10,000 buckets: right where scores are spread, wrong where they saturate."""
    steepness, table, found = evaluated
    theirs = [found[f"bucketed_auc/{label}"] for label in range(4)]
    gap = np.abs(theirs - metrics.one_vs_rest_auc(table, answers["labels"])).max()
    assert gap < TOLERANCE if steepness == 1 else gap > 10 * TOLERANCE


def test_bands_are_left_out_where_no_slice_has_a_place():
    from pipeline.tfma import eval_config

    plain = eval_config(CLASSES)
    assert not any(spec.slice_keys_sql for spec in plain.slicing_specs)
    assert [list(spec.feature_keys) for spec in plain.slicing_specs] == [[], [SITE]]
