"""A bucket on this machine: lists and serves objects, and can break off in the middle of one."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c


@dataclass
class Bucket:
    objects: dict[str, bytes]
    generation: int = 1
    cut_after: int | None = None  # bytes of the next download, after which the connection closes
    refuse: int | None = None  # status of every answer
    spoil: bool = False  # one byte of every download is another
    empty: bool = False  # every download gives no bytes, and no error
    composed: bool = False  # objects have no MD5
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    sent: int = 0
    address: str = ""

    def listing(self, prefix: str) -> bytes:
        items = [
            {"name": name, "size": str(len(data)), "generation": str(self.generation),
             "crc32c": base64.b64encode(google_crc32c.Checksum(data).digest()).decode()}
            | ({} if self.composed
               else {"md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode()})
            for name, data in self.objects.items() if name.startswith(prefix)
        ]  # fmt: skip
        return json.dumps({"items": items}).encode()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        """Says nothing."""

    def do_GET(self):
        bucket: Bucket = self.server.bucket
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        if bucket.refuse:
            self.send_error(bucket.refuse)
        elif address.path.startswith("/download/"):
            self._send(bucket, unquote(address.path.rpartition("/o/")[2]), query)
        elif address.path.startswith("/storage/"):
            self._whole(bucket.listing(query["prefix"][0]))
        else:
            self._whole(bucket.objects[address.path.lstrip("/")])

    def _whole(self, body: bytes):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send(self, bucket: Bucket, name: str, query: dict):
        if query["ifGenerationMatch"] != [str(bucket.generation)]:
            self.send_error(412)
            return
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        bucket.ranges.append((name, first, last))
        body = bucket.objects[name][first : last + 1]
        if bucket.spoil:
            body = bytes([body[0] ^ 1]) + body[1:]
        if bucket.empty:
            body = b""
        self.send_response(206)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(bucket.objects[name])}")
        self.end_headers()
        if bucket.cut_after is not None:
            body, bucket.cut_after = body[: bucket.cut_after], None
            self.close_connection = True
        bucket.sent += len(body)  # before the client may go on, and look
        self.wfile.write(body)


@contextmanager
def served(bucket: Bucket):
    """Serves the bucket on a free port of the loopback; its address is in the bucket."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.bucket = bucket
    bucket.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield bucket
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
