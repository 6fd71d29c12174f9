"""AUC and average precision as metrics of TFMA, by the definitions of `trainer.ranking`.

TFMA's own AUC counts scores in 10,000 equal buckets, and scores of one bucket as tied. A confident
classifier puts most of its scores into the first bucket and the last: of the same answers, with
logits six times as steep TFMA's AUC is off by .015 and its PR area by .02, fifteen times by .05 and
.024 (672 examples, measured 2026-11-21). Its PR area interpolates between thresholds besides, and
is no average precision: off by up to .005 with logits as they were.
These two keep every distinct score.
"""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types, metric_util

from trainer import ranking

Scores = dict[float, tuple[float, float]]  # score → weight of negatives, of positives


class ExactAUC(tfma.metrics.Metric):
    """Area under the ROC curve; NaN without positives or negatives."""

    def __init__(self, name: str = "auc"):
        super().__init__(metric_util.merge_per_key_computations(_auc), name=name)


class AveragePrecision(tfma.metrics.Metric):
    """Average precision: the area under the steps of the precision–recall curve; NaN likewise."""

    def __init__(self, name: str = "average_precision"):
        super().__init__(metric_util.merge_per_key_computations(_precision), name=name)


# TFMA looks at the parameters' names to know what to pass.
def _auc(name, eval_config=None, model_name="", output_name="", sub_key=None):
    key = metric_types.MetricKey(name, model_name, output_name, sub_key)
    return _of_counts(key, eval_config, ranking.area_of_trapezoids)


def _precision(name, eval_config=None, model_name="", output_name="", sub_key=None):
    key = metric_types.MetricKey(name, model_name, output_name, sub_key)
    return _of_counts(key, eval_config, ranking.area_of_steps)


def _of_counts(key, eval_config, area) -> metric_types.MetricComputations:
    """Both metrics ask for the same counts, which TFMA makes once."""
    counts = key._replace(name="_distinct_scores")
    gather = metric_types.MetricComputation(
        keys=[counts], preprocessors=None, combiner=_Gather(counts, eval_config)
    )

    def result(found: dict[metric_types.MetricKey, Any]) -> dict[metric_types.MetricKey, float]:
        scores: Scores = found[counts]
        weights = np.array([scores[score] for score in sorted(scores, reverse=True)])
        negatives, positives = weights.reshape(-1, 2).sum(axis=0)
        if not negatives or not positives:
            return {key: float("nan")}
        alarms, hits = weights.cumsum(axis=0).T
        return {key: area(hits, alarms)}

    return [gather, metric_types.DerivedMetricComputation(keys=[key], result=result)]


class _Gather(beam.CombineFn):
    """Sums the weight of positives and negatives at each distinct score."""

    def __init__(self, key: metric_types.MetricKey, eval_config: tfma.EvalConfig | None):
        self._key, self._eval_config = key, eval_config

    def create_accumulator(self) -> Scores:
        return {}

    def add_input(self, accumulator: Scores, element: Any) -> Scores:
        for label, score, weight in metric_util.to_label_prediction_example_weight(
            element,
            eval_config=self._eval_config,
            model_name=self._key.model_name,
            output_name=self._key.output_name,
            sub_key=self._key.sub_key,
        ):
            _add(accumulator, float(score), float(label), float(weight))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Scores]) -> Scores:
        merged: Scores = {}
        for accumulator in accumulators:
            for score, (negative, positive) in accumulator.items():
                _add(merged, score, 0.0, negative)
                _add(merged, score, 1.0, positive)
        return merged

    def extract_output(self, accumulator: Scores) -> dict[metric_types.MetricKey, Scores]:
        return {self._key: accumulator}


def _add(scores: Scores, score: float, label: float, weight: float) -> None:
    negative, positive = scores.get(score, (0.0, 0.0))
    scores[score] = (negative + (1 - label) * weight, positive + label * weight)
