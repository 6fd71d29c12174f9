"""A Vertex AI of one's own: models, endpoints, pipeline jobs, schedules over gRPC, in memory.

Run as a program, since protobuf's registry is one a process: `python -m tests.emulators.vertex`
prints the port it listens on, on loopback, and ends with its standard input. Methods, paths and
message types come from the installed client library, so that client and emulator agree on the wire
and nothing else. Everything is strict: a field that the API does not have, a method that is not
emulated and a value that the service's documentation forbids are errors.

The service `Control` steers it: JSON in, JSON out (`Control.apply`).
"""

import copy
import importlib
import json
import sys
import threading
from concurrent import futures

import grpc
from google.longrunning import operations_pb2

from tests.emulators import jobs
from tests.emulators.clock import Clock
from tests.emulators.endpoints import Endpoints
from tests.emulators.models import Models
from tests.emulators.pipelines import Pipelines
from tests.emulators.resources import ApiError, Operations, invalid
from tests.emulators.schedules import Schedules

PACKAGE = "google.cloud.aiplatform.v1"


class _Recorder(grpc.Channel):
    """A channel that goes nowhere: it tells which path and types a client's method has."""

    def __init__(self):
        self.methods = {}

    def unary_unary(self, method, request_serializer=None, response_deserializer=None, **_):
        self.methods[method] = (request_serializer, response_deserializer)
        return lambda *args, **kwargs: None

    unary_stream = stream_unary = stream_stream = unary_unary

    def subscribe(self, callback, try_to_connect=False):
        """Nothing ever happens here."""

    def unsubscribe(self, callback):
        """Nothing ever happens here."""

    def close(self):
        """Nothing is open."""


def request_types(service: str, module: str) -> dict[str, type]:
    """Every unary method of a service by its wire name, with the message it takes."""
    transports = importlib.import_module(
        f"google.cloud.aiplatform_v1.services.{module}.transports.grpc"
    )
    transport_type = getattr(transports, f"{service}GrpcTransport")
    recorder = _Recorder()
    transport = transport_type(channel=recorder)
    transport._logged_channel = recorder  # past the interceptor that logs
    transport._stubs.clear()
    for name in dir(transport_type):
        if isinstance(getattr(transport_type, name), property) and name != "operations_client":
            getattr(transport, name)
    prefix = f"/{PACKAGE}.{service}/"
    return {
        path.removeprefix(prefix): serializer.__self__.pb()
        for path, (serializer, _) in recorder.methods.items()
        if path.startswith(prefix)
    }


class Vertex:
    """The services with their state, and what was asked of them."""

    def __init__(self, run_job=jobs.run):
        self.lock = threading.RLock()
        self._run_job = run_job
        self._kept = {}
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.operations = Operations()
        self.endpoints = Endpoints(self.operations)
        self.models = Models(self.operations, self.endpoints.endpoints)
        self.endpoints.models = self.models
        self.pipelines = Pipelines(self.operations, self._run_job, self.lock)
        self.clock = Clock()
        self.schedules = Schedules(self.operations, self.pipelines, self.clock)
        self.pipelines.on_end = self.schedules.tick
        self.calls: list[str] = []
        self.refusals: dict[str, tuple[str, str]] = {}

    def call(self, name: str, handler: str, owner: str, request) -> object:
        """Answers one request of a client.

        Raises:
            ApiError: as the service would.
        """
        with self.lock:
            self.operations.advance()
            self.calls.append(name)
            if name in self.refusals:
                code, message = self.refusals.pop(name)
                raise ApiError(grpc.StatusCode[code], message)
            method = getattr(getattr(self, owner), handler, None)
            if method is None:
                raise ApiError(grpc.StatusCode.UNIMPLEMENTED, f"{name} is not emulated.")
            known = copy.deepcopy(request)
            known.DiscardUnknownFields()
            if known.ByteSize() != request.ByteSize():
                raise invalid(f"{name} has fields that the API does not know.")
            return copy.deepcopy(method(request))

    def operation(self, name: str) -> operations_pb2.Operation:
        """The state of a long-running operation."""
        with self.lock:
            self.operations.advance()
            return copy.deepcopy(self.operations.get(name))

    def control(self, order: dict) -> dict:
        """Carries out an order of a test.

        Args:
            order: any of `reset`: true; `delay`: seconds that operations take; `fail`: method →
                [code, message] that its next operation ends with; `refuse`: method →
                [code's name, message] that its next call is answered with; `advance`: seconds
                that the clock of schedules is moved by; `keep`, `restore`: a name under which
                models and endpoints are kept and brought back.
        """
        with self.lock:
            if order.get("reset"):
                self.reset()
            self.operations.delay = order.get("delay", self.operations.delay)
            self.operations.failures |= order.get("fail", {})
            self.refusals |= order.get("refuse", {})
            self.clock.advance(order.get("advance", 0))
            self.schedules.tick()
            if name := order.get("keep"):
                self._kept[name] = self._state(copy.deepcopy)
            if name := order.get("restore"):
                for holder, field, value in copy.deepcopy(self._kept[name]):
                    current = getattr(getattr(self, holder), field)
                    current.clear()
                    current.update(value)
            calls, self.calls = self.calls, []
            return {"calls": calls}

    def _state(self, copied) -> list:
        places = [("models", "models"), ("models", "counters"), ("endpoints", "endpoints")]
        return [(holder, field, copied(getattr(getattr(self, holder), field)))
                for holder, field in places]  # fmt: skip


SERVICES = {
    "ModelService": ("model_service", "models"),
    "EndpointService": ("endpoint_service", "endpoints"),
    "PipelineService": ("pipeline_service", "pipelines"),
    "ScheduleService": ("schedule_service", "schedules"),
}


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def _answering(function):
    """A gRPC method that turns ApiError into its status."""

    def method(request, context):
        try:
            return function(request)
        except ApiError as error:
            context.abort(error.code, error.message)

    return method


def handlers(vertex: Vertex) -> list[grpc.GenericRpcHandler]:
    """Everything that the server answers."""
    found = []
    for service, (module, owner) in SERVICES.items():
        methods = {}
        for name, request_type in request_types(service, module).items():

            def answer(request, name=name, owner=owner):
                return vertex.call(name, _snake(name), owner, request)

            methods[name] = grpc.unary_unary_rpc_method_handler(
                _answering(answer),
                request_deserializer=request_type.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
        found.append(grpc.method_handlers_generic_handler(f"{PACKAGE}.{service}", methods))
    operations = grpc.unary_unary_rpc_method_handler(
        _answering(lambda request: vertex.operation(request.name)),
        request_deserializer=operations_pb2.GetOperationRequest.FromString,
        response_serializer=operations_pb2.Operation.SerializeToString,
    )
    control = grpc.unary_unary_rpc_method_handler(
        lambda request, _: json.dumps(vertex.control(json.loads(request))).encode()
    )
    return [
        *found,
        grpc.method_handlers_generic_handler(
            "google.longrunning.Operations", {"GetOperation": operations}
        ),
        grpc.method_handlers_generic_handler("Control", {"Apply": control}),
    ]


def main() -> None:
    """Serves until the standard input ends."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers(tuple(handlers(Vertex())))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main()
