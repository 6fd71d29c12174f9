"""What Prometheus may ask: counters, latencies and states, in a registry of their own.

Labels are of our own words and of configured models' names; nothing a stranger can choose becomes
a label, so neither can anybody fill the memory with them.
"""

from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.interface import Engine, Observation

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Seconds: from half the time of one image through int8 LiteRT to the default deadline.
BUCKETS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1, 2, 5, 10)


class _Children(NamedTuple):
    """The series that one version's requests of one code count in."""

    requests: Counter
    seconds: Histogram | None = None
    images: Counter | None = None


class Metrics:
    """All of a server's metrics."""

    def __init__(self, engine: Engine):
        disable_created_metrics()  # a series more for each, which nobody asks for
        self._registry = CollectorRegistry()
        # To find a series by its labels takes longer than to count in it.
        self._counted: dict[tuple[str, int | None, str], _Children] = {}
        self._answered: dict[tuple[str, str], Counter] = {}
        self._requests = Counter(
            "cortexflow_requests",
            "Prediction requests by the version that answered and the code.",
            ("model", "version", "code"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "cortexflow_request_seconds",
            "From the engine's start on a request to its answer, of answered ones.",
            ("model", "version"),
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._images = Counter(
            "cortexflow_images",
            "Images that were answered with a prediction.",
            ("model", "version"),
            registry=self._registry,
        )
        self._answers = Counter(
            "cortexflow_answers",
            "Answers by protocol and status, of all requests.",
            ("protocol", "status"),
            registry=self._registry,
        )
        self._log_records = Counter(
            "cortexflow_prediction_log_records",
            "Records of the prediction log: written, or dropped since the queue was full or the "
            "disk refused.",
            ("outcome",),
            registry=self._registry,
        )
        Gauge(
            "cortexflow_started_seconds", "Unix time of the start.", registry=self._registry
        ).set_to_current_time()
        self._registry.register(_EngineStates(engine))

    def observe(self, observation: Observation) -> None:
        """Counts one prediction request."""
        key = (observation.model, observation.version, observation.code)
        counted = self._counted.get(key)
        if counted is None:
            counted = self._counted[key] = self._children(*key)
        counted.requests.inc()
        if counted.seconds is not None and counted.images is not None:
            counted.seconds.observe(observation.seconds)
            counted.images.inc(observation.images)

    def _children(self, model: str, number: int | None, code: str) -> "_Children":
        version = "" if number is None else str(number)
        requests = self._requests.labels(model, version, code)
        if code != "ok":
            return _Children(requests)
        answered = (model, version)
        return _Children(requests, self._seconds.labels(*answered), self._images.labels(*answered))

    def answered(self, protocol: str, status: str) -> None:
        """Counts one answer of a front.

        Args:
            protocol: `rest` or `grpc`.
            status: of HTTP, or the name of gRPC's.
        """
        key = (protocol, status)
        counted = self._answered.get(key)
        if counted is None:
            counted = self._answered[key] = self._answers.labels(*key)
        counted.inc()

    def logged(self, written: int, dropped: int) -> None:
        """Counts records of the prediction log."""
        self._log_records.labels("written").inc(written)
        self._log_records.labels("dropped").inc(dropped)

    def text(self) -> bytes:
        """Everything in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)


class _EngineStates(Collector):
    """What the engine can tell at the moment of asking."""

    def __init__(self, engine: Engine):
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        ready = GaugeMetricFamily("cortexflow_ready", "1 where every model has a live version.")
        ready.add_metric((), float(self._engine.ready))
        queued = GaugeMetricFamily("cortexflow_queued_images", "Images waiting for their turn.")
        queued.add_metric((), float(self._engine.queued))
        loaded = GaugeMetricFamily(
            "cortexflow_version_available",
            "1 for each version that answers.",
            labels=("model", "version"),
        )
        traffic = GaugeMetricFamily(
            "cortexflow_traffic_ratio",
            "Share of the requests that name no version, by role.",
            labels=("model", "role", "version"),
        )
        for name, share in self._engine.models().items():
            for status in self._engine.status(name):
                if status.state == "AVAILABLE":
                    loaded.add_metric((name, str(status.version)), 1.0)
            if share.live is not None:
                traffic.add_metric((name, "live", str(share.live)), 1 - share.percent / 100)
            if share.canary is not None:
                traffic.add_metric((name, "canary", str(share.canary)), share.percent / 100)
        return (ready, queued, loaded, traffic)

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time: registering must not ask the engine."""
        return ()
