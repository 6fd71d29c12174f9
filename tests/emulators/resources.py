"""What the emulated services share: errors, long-running operations, listing, update masks."""

import copy
import itertools
import re
import time
from collections.abc import Callable, Iterable

import grpc
from google.longrunning import operations_pb2
from google.protobuf import any_pb2, timestamp_pb2
from google.rpc import status_pb2

LABEL = re.compile(r"[a-z0-9_-]{0,63}")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_TERM = re.compile(r"\s*(?P<field>[\w.-]+)\s*(?P<sign>!=|=|:)\s*(?P<value>\"[^\"]*\"|\S+)\s*")


class ApiError(Exception):
    """An error as the service answers it."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> ApiError:
    return ApiError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(name: str) -> ApiError:
    return ApiError(grpc.StatusCode.NOT_FOUND, f"{name} is not found.")


def exists(name: str) -> ApiError:
    return ApiError(grpc.StatusCode.ALREADY_EXISTS, f"{name} already exists.")


def precondition(message: str) -> ApiError:
    return ApiError(grpc.StatusCode.FAILED_PRECONDITION, message)


def now() -> timestamp_pb2.Timestamp:
    moment = timestamp_pb2.Timestamp()
    moment.GetCurrentTime()
    return moment


class Operations:
    """Long-running operations: what they change happens when they end, `delay` seconds later."""

    def __init__(self):
        self.delay = 0.0
        self.failures: dict[str, tuple[int, str]] = {}  # method → the error its next ones end with
        self._ids = itertools.count(1)
        self._pending: dict[str, tuple[float, Callable]] = {}
        self._known: dict[str, operations_pb2.Operation] = {}

    def begin(self, method: str, parent: str, metadata, work: Callable) -> operations_pb2.Operation:
        """Starts an operation; `work` makes the change and returns the response, or raises."""
        operation = operations_pb2.Operation(name=f"{parent}/operations/{next(self._ids)}")
        operation.metadata.CopyFrom(_any(metadata))
        self._known[operation.name] = operation
        failure = self.failures.pop(method, None)

        def end():
            try:
                if failure:
                    operation.error.CopyFrom(status_pb2.Status(code=failure[0], message=failure[1]))
                else:
                    operation.response.CopyFrom(_any(work()))
            except ApiError as error:
                operation.error.code = error.code.value[0]
                operation.error.message = error.message
            operation.done = True

        self._pending[operation.name] = (time.monotonic() + self.delay, end)
        self.advance()
        return copy.deepcopy(operation)

    def advance(self) -> None:
        """Ends what is due."""
        for name, (due, end) in list(self._pending.items()):
            if time.monotonic() >= due:
                del self._pending[name]
                end()

    def get(self, name: str) -> operations_pb2.Operation:
        if name not in self._known:
            raise not_found(name)
        return self._known[name]


def _any(message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def require(message, *fields: str) -> None:
    """Refuses a request that lacks a required field, dotted below `message`."""
    for path in fields:
        value = message
        for name in path.split("."):
            value = getattr(value, name)
        if not value:
            raise invalid(f"Required field is not set: {path}")


def check_labels(labels) -> None:
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not LABEL.fullmatch(value):
            raise invalid(f"Label {key}={value!r} is not allowed")
    if len(labels) > 64:
        raise invalid("More than 64 labels")


def update(resource, changes, mask: Iterable[str], allowed: Iterable[str]) -> None:
    """Sets the masked fields of a resource; a path that may not be changed is an error."""
    paths = list(mask)
    if not paths:
        raise invalid("update_mask is required")
    if wrong := sorted(set(paths) - set(allowed)):
        raise invalid(f"Field(s) {', '.join(wrong)} cannot be updated")
    for path in paths:
        resource.ClearField(path)
        value = getattr(changes, path)
        if hasattr(value, "items"):
            getattr(resource, path).update(value)
        elif hasattr(value, "CopyFrom"):
            getattr(resource, path).CopyFrom(value)
        else:
            setattr(resource, path, value)


def page(resources: list, request, response, field: str):
    """Fills one page of a list answer: filtered, ordered as given, with a token for the next."""
    kept = [resource for resource in resources if matches(resource, request.filter)]
    try:
        start = int(request.page_token or 0)
    except ValueError:
        raise invalid(f"page_token {request.page_token!r} is not one of ours") from None
    size = min(request.page_size or 100, 100)
    getattr(response, field).extend(kept[start : start + size])
    if start + size < len(kept):
        response.next_page_token = str(start + size)
    return response


def matches(resource, expression: str) -> bool:
    """The part of AIP-160 that clients of this service use: `field=value AND labels.key:*`."""
    for term in filter(None, re.split(r"\s+AND\s+", expression)):
        match = _TERM.fullmatch(term)
        if match is None:
            raise invalid(f"Filter {expression!r} is malformed")
        wanted = match["value"].strip('"')
        found = _field(resource, match["field"])
        equal = found is not None and (wanted == "*" or str(found) == wanted)
        if equal == (match["sign"] == "!="):
            return False
    return True


def _field(resource, path: str):
    head, _, rest = path.partition(".")
    names = {field.name for field in resource.DESCRIPTOR.fields}
    if head in ("model", "endpoint") and head not in names:  # `model=ID`, the resource's own id
        return resource.name.rpartition("/")[2]
    if head not in names:
        raise invalid(f"Filter names the unknown field {path}")
    value = getattr(resource, head)
    return value.get(rest) if rest else value
