"""What a request may be answered instead of a prediction: one table of codes for REST and gRPC."""

from typing import Any

from schema.errors import CortexflowError

# code → (HTTP status, name of the gRPC status)
CODES = {
    "invalid_json": (400, "INVALID_ARGUMENT"),
    "invalid_request": (400, "INVALID_ARGUMENT"),
    "not_found": (404, "NOT_FOUND"),
    "method_not_allowed": (405, "UNIMPLEMENTED"),
    "request_timeout": (408, "DEADLINE_EXCEEDED"),
    "too_large": (413, "INVALID_ARGUMENT"),
    "unsupported_media_type": (415, "INVALID_ARGUMENT"),
    "refused_image": (422, "INVALID_ARGUMENT"),
    "out_of_distribution": (422, "FAILED_PRECONDITION"),
    "overloaded": (429, "RESOURCE_EXHAUSTED"),
    "internal": (500, "INTERNAL"),
    "unimplemented": (501, "UNIMPLEMENTED"),
    "unavailable": (503, "UNAVAILABLE"),
    "deadline_exceeded": (504, "DEADLINE_EXCEEDED"),
}


class ServingError(CortexflowError):
    """A request that gets no prediction.

    Attributes:
        code: a key of `CODES`.
        details: more for machines, JSON values; never an image, a file name or a stranger's text.
        retry_after: seconds after which the same request may succeed; of 429 and 503.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retry_after: float | None = None,
    ):
        super().__init__(message)
        self.code = code
        self.details = details or {}
        self.retry_after = retry_after

    @property
    def http_status(self) -> int:
        """Status of the HTTP answer."""
        return CODES[self.code][0]

    @property
    def grpc_status(self) -> str:
        """Name of the `grpc.StatusCode`."""
        return CODES[self.code][1]
