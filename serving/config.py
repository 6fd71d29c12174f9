"""Frozen, validated settings of the server."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class Settings(BaseModel):
    """Base: immutable, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(Settings):
    """What one request may be, checked before anything large is held or decoded."""

    max_body_bytes: PositiveInt = 32 << 20
    max_instances: PositiveInt = 256
    max_image_bytes: PositiveInt = 8 << 20
    max_pixels: PositiveInt = 4_000_000
    max_json_depth: PositiveInt = 16
    max_json_values: PositiveInt = 100_000
    max_header_bytes: PositiveInt = 32 << 10  # request line and headers
    max_buffered_bytes: PositiveInt = 256 << 20  # bodies of all requests together
    max_connections: PositiveInt = 1024
    header_seconds: PositiveFloat = 10.0  # from the connection, or the last answer, to the headers
    body_seconds: PositiveFloat = 30.0  # from the headers to the end of the body


class LogSettings(Settings):
    """The prediction log: a span is closed when it is large or old enough, whichever is first."""

    max_bytes: PositiveInt = 32 << 20  # of records, before compression
    max_seconds: PositiveFloat = 3600.0
    queue: PositiveInt = 10_000  # requests waiting to be written; more are dropped and counted
    flush_seconds: PositiveFloat = 0.5  # the most that kill -9 loses


class BatchingSettings(Settings):
    """Requests that wait are computed together; nobody waits for company."""

    max_batch: PositiveInt = 32  # images
    queue: PositiveInt = 256  # images waiting; more are answered 429
    threads: PositiveInt | None = None  # of inference; None: one per core
    deadline_seconds: PositiveFloat = 10.0


class CanarySettings(Settings):
    """When a canary is taken out of traffic without asking.

    Both sides are compared with what the live version did over the same time. The bounds are on
    the lower end of a one-sided interval at `level`, so that chance alone seldom takes one out.
    """

    min_requests: PositiveInt = 50
    max_error_rate: float = Field(0.02, ge=0.0, lt=1.0)  # above the live version's
    max_drift: float = Field(0.15, gt=0.0, le=1.0)  # Jensen-Shannon divergence of mean answers
    level: float = Field(0.001, gt=0.0, lt=0.5)


class ServerSettings(Settings):
    """One server: one `models.config`, all models in it.

    Attributes:
        registry: folder that holds `models.config`.
        runtime: `auto` takes the LiteRT int8 file where the version has one, else the SavedModel.
        host: address; loopback unless told otherwise.
        rest_port, grpc_port: 0 lets the system choose; None switches one off.
        poll_seconds: between looks at `models.config`.
        input_gate: refuse images unlike those the model was trained on, where its bundle says how.
        prediction_log: folder of the spans that monitoring reads; None writes none.
        log: when a span of it is closed.
        allow_reload: answer HandleReloadConfigRequest; None: where `host` is a loopback address,
            since whoever reaches the port may then choose what is served.
        drain_seconds: the most that stopping waits for requests under way.
    """

    registry: Path
    runtime: str = Field("auto", pattern="^(auto|litert-int8|litert-float|savedmodel)$")
    host: str = "127.0.0.1"
    rest_port: int | None = Field(8501, ge=0, le=65535)
    grpc_port: int | None = Field(8500, ge=0, le=65535)
    poll_seconds: PositiveFloat = 0.1
    input_gate: bool = True
    prediction_log: Path | None = None
    log: LogSettings = LogSettings()
    allow_reload: bool | None = None
    drain_seconds: PositiveFloat = 20.0
    limits: Limits = Limits()
    batching: BatchingSettings = BatchingSettings()
    canary: CanarySettings = CanarySettings()


class ProbeSettings(Settings):
    """What a model may take when it is tried out before a push.

    Attributes:
        timeout_seconds: for all of it; TensorFlow alone takes five to ten to load.
        memory_bytes: address space beside that of TensorFlow itself. The most that a model of
            SimCLR's sizes needs is twice its weights (3.2 GB for the largest).
    """

    timeout_seconds: PositiveFloat = 180.0
    memory_bytes: PositiveInt = 4 << 30
