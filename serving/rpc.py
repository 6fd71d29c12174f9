"""TF Serving's gRPC services, PredictionService and ModelService, on grpc.aio.

Messages are parsed here, not by gRPC, which answers INTERNAL for bytes that are no message.
Classify, Regress and MultiInference are UNIMPLEMENTED: our models have no such signatures.
"""

import ipaddress
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from registry.serving_config import ModelConfig
from serving import logs, protos, signatures
from serving.buffered import Buffered
from serving.config import Limits, ServerSettings
from serving.errors import ServingError
from serving.interface import Engine, Observation, Observer, PredictAnswer, PredictRequest
from serving.metrics import Metrics
from serving.naming import request_id, valid, worded

BANNER = ("x-intended-use", "research use only, not for diagnosis")
MAX_RPCS = 1024
MAX_MODELS = 64
_CUT = 512  # of a status message: HTTP/2 carries it in a header

Metadata = tuple[tuple[str, str], ...]
Method = Callable[[bytes, "Call"], Awaitable[Any]]


class Call:
    """What a method may know of and tell the client: its id, its patience, and metadata."""

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any]):
        received = dict(reversed(context.invocation_metadata() or ())).get("x-request-id")
        self.identity = request_id(
            received.encode("latin1", "replace") if isinstance(received, str) else received
        )
        remaining = context.time_remaining()
        self.deadline = None if remaining is None else time.monotonic() + remaining
        self.trailing: Metadata = ()


class RpcServices:
    """Both services.

    Args:
        engine: what answers.
        settings: limits, and whether configurations may be reloaded from outside.
        metrics: counts answers.
        observer: is told of predictions that were refused before the engine saw them.
        buffered: bounds what all requests hold together.
    """

    def __init__(
        self,
        engine: Engine,
        settings: ServerSettings,
        metrics: Metrics,
        observer: Observer,
        buffered: Buffered,
    ):
        self._engine = engine
        self._limits: Limits = settings.limits
        self._root = settings.registry
        self._allow_reload = (
            _is_loopback(settings.host) if settings.allow_reload is None else settings.allow_reload
        )
        self._metrics = metrics
        self._observer = observer
        self._buffered = buffered

    def server(self) -> grpc.aio.Server:
        """A gRPC server with both services, bound to no port yet."""
        server = grpc.aio.server(
            maximum_concurrent_rpcs=MAX_RPCS,
            options=(
                ("grpc.max_receive_message_length", self._limits.max_body_bytes),
                ("grpc.max_metadata_size", self._limits.max_header_bytes),
                ("grpc.so_reuseport", 0),  # else a second server would silently share the port
                ("grpc.max_connection_idle_ms", 300_000),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ),
        )
        unimplemented = self._unimplemented
        services: Mapping[str, Mapping[str, Method]] = {
            protos.PREDICTION_SERVICE: {
                "Predict": self._predict,
                "GetModelMetadata": self._metadata,
                "Classify": unimplemented,
                "Regress": unimplemented,
                "MultiInference": unimplemented,
            },
            protos.MODEL_SERVICE: {
                "GetModelStatus": self._status,
                "HandleReloadConfigRequest": self._reload,
            },
        }
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    service,
                    {
                        name: grpc.unary_unary_rpc_method_handler(self._guarded(method))
                        for name, method in methods.items()
                    },
                )
                for service, methods in services.items()
            ]
        )
        return server

    def _guarded(self, method: Method) -> Callable[[bytes, Any], Awaitable[bytes]]:
        """Turns what a method raises into a status; nothing else leaves."""

        async def handler(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            call = Call(context)
            try:
                with self._buffered.hold() as hold:
                    hold.grow_to(len(request))
                    response = await method(request, call)
            except ServingError as problem:
                status, message = problem.grpc_status, str(problem)[:_CUT]
            except Exception as problem:
                logs.error("request failed", problem, protocol="grpc")
                status, message = "INTERNAL", "Internal error; the log has its place."
            else:
                status = "OK"
            self._metrics.answered("grpc", status)
            context.set_trailing_metadata((("x-request-id", call.identity), BANNER, *call.trailing))
            if status != "OK":
                await context.abort(grpc.StatusCode[status], message)
            return bytes(response.SerializeToString())

        return handler

    async def _predict(self, data: bytes, call: Call) -> Any:
        model = ""
        try:
            request = _parsed(protos.PredictRequest, data)
            model, version, label = _target(request.model_spec)
            understood = self._understood(request)
        except ServingError as problem:
            known = model if model in self._engine.models() else ""
            self._observer(Observation.unread(known, call.identity, problem.code))
            raise
        try:
            answer = await self._engine.predict(
                PredictRequest(
                    model=model,
                    images=understood.images,
                    version=version,
                    label=label,
                    request_id=call.identity,
                    deadline=call.deadline,
                )
            )
        except ServingError as problem:
            raise worded(problem, model, version, label) from None
        call.trailing = (("x-model-version", str(answer.version)),)
        return _response(answer, understood.signature, request.output_filter)

    def _understood(self, request: Any) -> signatures.Call:
        if len(request.inputs) != 1:
            raise ServingError(
                "invalid_request",
                f"input size does not match signature: {len(request.inputs)} given, 1 expected.",
            )
        name = next(iter(request.inputs))
        values = _strings(request.inputs[name], self._limits)
        signature = request.model_spec.signature_name or None
        return signatures.understood(signature, name, values, columns=True)

    async def _metadata(self, data: bytes, call: Call) -> Any:
        request = _parsed(protos.GetModelMetadataRequest, data)
        if not request.metadata_field:
            raise ServingError(
                "invalid_request",
                "GetModelMetadataRequest must specify at least one metadata_field",
            )
        if set(request.metadata_field) != {"signature_def"}:
            raise ServingError(
                "invalid_request", "Metadata field is not supported; signature_def is."
            )
        target = _target(request.model_spec)
        try:
            found = self._engine.metadata(*target)
        except ServingError as problem:
            raise worded(problem, *target) from None
        definitions = protos.SignatureDefMap()
        for signature, name in signatures.INPUTS.items():
            definition = definitions.signature_def[signature]
            definition.method_name = signatures.METHOD
            given = definition.inputs[name]
            given.name, given.dtype = name, protos.DT_STRING
            given.tensor_shape.dim.add(size=-1)
            for output in found.outputs:
                info = definition.outputs[output]
                info.name, info.dtype = output, protos.DT_FLOAT
                info.tensor_shape.dim.add(size=-1)
                info.tensor_shape.dim.add(size=len(found.classes))
        response = protos.GetModelMetadataResponse()
        response.model_spec.name = found.model
        response.model_spec.version.value = found.version
        field = response.metadata["signature_def"]
        field.type_url = protos.SIGNATURE_DEF_TYPE
        field.value = definitions.SerializeToString(deterministic=True)
        return response

    async def _status(self, data: bytes, call: Call) -> Any:
        request = _parsed(protos.GetModelStatusRequest, data)
        target = _target(request.model_spec)
        try:
            states = self._engine.status(*target)
        except ServingError as problem:
            raise worded(problem, *target, status=True) from None
        response = protos.GetModelStatusResponse()
        for one in states:
            entry = response.model_version_status.add(
                version=one.version, state=protos.ModelVersionStatus.State.Value(one.state)
            )
            entry.status.error_code = protos.error_code(one.error_code)
            entry.status.error_message = one.error_message
        return response

    async def _reload(self, data: bytes, call: Call) -> Any:
        request = _parsed(protos.ReloadConfigRequest, data)
        if not self._allow_reload:
            raise ServingError(
                "unimplemented",
                "This server takes its configuration from its file alone (allow_reload).",
            )
        if request.config.WhichOneof("config") != "model_config_list":
            raise ServingError(
                "invalid_request",
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
                "ModelConfigList is currently supported",
            )
        configs = request.config.model_config_list.config
        if len(configs) > MAX_MODELS:
            raise ServingError("too_large", f"More than {MAX_MODELS} models.")
        await self._engine.reload([_model_config(config, self._root) for config in configs])
        response = protos.ReloadConfigResponse()
        response.status.error_code = protos.error_code("OK")
        return response

    async def _unimplemented(self, data: bytes, call: Call) -> Any:
        raise ServingError("unimplemented", "Not offered; use Predict.")


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise ServingError(
            "invalid_request", f"The message is no {kind.DESCRIPTOR.name}."
        ) from None


def _target(spec: Any) -> tuple[str, int | None, str | None]:
    if not spec.name:
        raise ServingError("invalid_request", "Missing ModelSpec")
    chosen = spec.WhichOneof("version_choice")
    return (
        spec.name,
        spec.version.value if chosen == "version" else None,
        spec.version_label if chosen == "version_label" else None,
    )


def _strings(tensor: Any, limits: Limits) -> Sequence[bytes]:
    """The strings of a `DT_STRING` tensor of one axis."""
    if tensor.dtype != protos.DT_STRING:
        raise ServingError(
            "invalid_request",
            "Expects arg[0] to be string: PNG or JPEG files as DT_STRING, not tensors of numbers.",
        )
    if tensor.tensor_shape.unknown_rank or len(tensor.tensor_shape.dim) != 1:
        raise ServingError("invalid_request", "The input must have one axis, [N].")
    count, values = tensor.tensor_shape.dim[0].size, list(tensor.string_val)
    if count < 1:
        raise ServingError("invalid_request", "The input has no instances.")
    signatures.check_count(count, limits)
    if not 1 <= len(values) <= count:
        raise ServingError(
            "invalid_request", f"tensor parsing error: {len(values)} strings for shape [{count}]."
        )
    # tensorflow/core/framework/tensor.proto: the last value stands for all that are left out.
    return values + values[-1:] * (count - len(values))


def _response(answer: PredictAnswer, signature: str, wanted: Sequence[str]) -> Any:
    if len(set(wanted)) != len(wanted):
        raise ServingError("invalid_request", "duplicate output tensor alias")
    if set(wanted) - set(answer.outputs):
        raise ServingError(
            "invalid_request",
            "output tensor alias not found in signature. Outputs expected to be in the set "
            f"{{{','.join(sorted(answer.outputs))}}}.",
        )
    response = protos.PredictResponse()
    response.model_spec.name = answer.model
    response.model_spec.version.value = answer.version
    response.model_spec.signature_name = signature
    for name in wanted or answer.outputs:
        values = np.ascontiguousarray(answer.outputs[name], np.float32)
        if not np.isfinite(values).all():
            raise ServingError("internal", "The model's answer is not a number.")
        tensor = response.outputs[name]
        tensor.dtype = protos.DT_FLOAT
        for size in values.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.float_val.extend(values.ravel().tolist())
    return response


def _model_config(config: Any, root: Path) -> ModelConfig:
    """One entry of a reload; only models of the registry are served, whoever asks."""
    if not valid(config.name):
        raise ServingError("invalid_request", "A model's name is letters, digits, '.', '_', '-'.")
    base = Path(config.base_path)
    if "\0" in config.base_path or not base.resolve().is_relative_to(root.resolve()):
        raise ServingError(
            "invalid_request", f"Model {config.name}: base_path is outside of the registry."
        )
    policy = config.model_version_policy
    chosen = policy.WhichOneof("policy_choice")
    if chosen == "specific":
        versions = tuple(policy.specific.versions)
    else:
        present = sorted(_numbers(base))
        latest = max(1, policy.latest.num_versions)
        versions = tuple(present if chosen == "all" else present[-latest:])
    if not versions:
        raise ServingError("invalid_request", f"Model {config.name}: no version is named or there.")
    labels = dict(config.version_labels)
    if not all(map(valid, labels)):
        raise ServingError("invalid_request", f"Model {config.name}: a label's name is not valid.")
    return ModelConfig(config.name, str(base), versions, labels)


def _numbers(base: Path) -> list[int]:
    try:
        entries = list(base.iterdir())
    except OSError:
        return []
    return [
        int(entry.name)
        for entry in entries
        if entry.name.isascii() and entry.name.isdigit() and len(entry.name) < 19
    ]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
