"""How much of strangers' bodies is in memory, of all requests, from first byte to answer."""

from types import TracebackType

from serving.errors import ServingError


class Buffered:
    """Bytes held by the requests under way, of both fronts; used from one event loop.

    Args:
        limit: bytes; a request that would exceed it is answered `overloaded`.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.size = 0

    def hold(self) -> "Hold":
        """One request's share, given back when its `with` block ends."""
        return Hold(self)


class Hold:
    """What one request holds."""

    def __init__(self, buffered: Buffered):
        self._buffered = buffered
        self._size = 0

    def grow_to(self, size: int) -> None:
        """Says that the request now holds, or will hold, `size` bytes.

        Raises:
            ServingError: `overloaded`.
        """
        self._buffered.size += size - self._size
        self._size = size
        if self._buffered.size > self._buffered.limit:
            raise ServingError("overloaded", "Too many large requests at once.", retry_after=1.0)

    def __enter__(self) -> "Hold":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._buffered.size -= self._size
        self._size = 0
