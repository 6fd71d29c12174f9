"""gcp-storage-emulator in a process of its own, with the preconditions that it lacks.

Run as a program: `python -m tests.emulators.storage` prints the port it listens on, on loopback,
keeps everything in memory and ends with its standard input. What the emulator lacks is mended
here: it ignores `ifGenerationMatch`, on which compare-and-swap rests; it fails at an upload without
bytes, by which TensorFlow makes a folder; it keeps the sizes of chunks as content; it sends whoever
came by https on to http; and it is no place for several requests at once. `POST /keep?name=N` and
`POST /restore?name=N` keep the whole state and bring it back.
"""

import copy
import sys
import threading
from functools import partial
from http import HTTPStatus
from http.server import ThreadingHTTPServer

from gcp_storage_emulator import server as emulator
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.storage import Storage

CHANGES = ("create_file", "delete_file", "patch_object")


class PreconditionFailed(Exception):
    """The object has another generation than the request wants."""


class CheckedStorage(Storage):
    """The emulator's storage, heeding the generation that the current request wants."""

    wanted: int | None = None

    def _check(self, bucket: str, name: str) -> None:
        if self.wanted is None:
            return
        try:
            found = int(self.get_file_obj(bucket, name)["generation"])
        except NotFound:
            found = 0
        if found != self.wanted:
            raise PreconditionFailed(f"{bucket}/{name} has generation {found}, not {self.wanted}")


def _checked(name: str):
    original = getattr(Storage, name)

    def method(self, bucket, key, *args, **kwargs):
        self._check(bucket, key)
        return original(self, bucket, key, *args, **kwargs)

    return method


for _name in CHANGES:
    setattr(CheckedStorage, _name, _checked(_name))


class Request(emulator.Request):
    """A request whose empty body is empty bytes, and which knows by which scheme it came."""

    def __init__(self, request_handler, method):
        """Takes Google's own names for https: nothing else is asked under them."""
        super().__init__(request_handler, method)
        if self._parsed_url.netloc.endswith(".googleapis.com"):
            self._base_url = self._base_url.replace("http://", "https://", 1)
            self._full_url = self._base_url + self._path

    @property
    def data(self):
        """The body, parsed by its type."""
        found = super().data
        return b"" if found is None and self.query.get("uploadType") == ["media"] else found


class Router(emulator.Router):
    """Routes one request, with its precondition in force."""

    kept: dict[str, dict] = {}  # noqa: RUF012
    one_at_a_time = threading.Lock()

    def handle(self, method):
        """Answers 412 where the precondition does not hold."""
        with self.one_at_a_time:
            self._handle(method)

    def _handle(self, method):
        storage = self._request_handler.storage
        request = emulator.Request(self._request_handler, method)
        response = emulator.Response(self._request_handler)
        if method == emulator.POST and request.path in ("/keep", "/restore"):
            name = request.query["name"][0]
            if request.path == "/keep":
                self.kept[name] = copy.deepcopy(vars(storage))
            else:
                vars(storage).update(copy.deepcopy(self.kept[name]))
            response.json({})
            response.close()
            return
        wanted = request.query.get("ifGenerationMatch")
        storage.wanted = int(wanted[0]) if wanted else None
        try:
            super().handle(method)
        except PreconditionFailed as error:
            response.status = HTTPStatus.PRECONDITION_FAILED
            response.json({"error": {"code": 412, "message": str(error)}})
            response.close()
        finally:
            storage.wanted = None


class Handler(emulator.RequestHandler):
    """Keeps the connection open between requests, as the real service does."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def parse_request(self) -> bool:
        """Lets `Transfer-Encoding` overrule `Content-Length` (RFC 9112, 6.3): TensorFlow has both.

        The store would take the sizes of the chunks for content.
        """
        understood = super().parse_request()
        if understood and "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            del self.headers["Content-Length"]
        return understood


def main() -> None:
    """Serves one client at a time until the standard input ends."""
    emulator.Router, emulator.Request = Router, Request
    storage = CheckedStorage(use_memory_fs=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, storage))
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
