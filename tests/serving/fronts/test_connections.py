"""Connections of strangers: slow, many, broken, endless, gone; and who sends too much."""

import concurrent.futures
import contextlib
import gc
import http.client
import json
import socket
import threading

import numpy as np
import pytest
from memory_engine import PNG, expected, serving, until

from serving.config import Limits

LIMITS = Limits(
    max_body_bytes=200_000,
    max_buffered_bytes=600_000,
    max_header_bytes=8_000,
    max_connections=260,
    header_seconds=0.4,
    body_seconds=0.6,
)
KEEPERS = ("serving.connections", "serving.reading", "uvicorn.protocols.http.httptools_impl")
PREDICT = b"POST /v1/models/severity:predict HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("registry"), limits=LIMITS, grpc_port=None) as running:
        yield running


@contextlib.contextmanager
def connection(front):
    with socket.create_connection(("127.0.0.1", front.rest), timeout=20) as client:
        yield client


def answer(client):
    """Status, headers, body of one answer; the status is None where the server only hung up."""
    response = http.client.HTTPResponse(client)
    try:
        response.begin()
    except (http.client.BadStatusLine, ConnectionError):
        return None, {}, None
    return response.status, dict(response.getheaders()), json.loads(response.read())


def alive(front):
    with connection(front) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        return answer(client)[0] == 200


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: "],
    ids=["nothing", "half a line", "half a header"],
)
def test_headers_that_do_not_come(front, sent):
    with connection(front) as client:
        client.sendall(sent)
        status, _, document = answer(client)
        assert (status, document["code"]) == (408, "request_timeout")
        assert client.recv(1) == b""


def test_dribbled_headers_of_a_second_request(front):
    with connection(front) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(client)[0] == 200
        client.sendall(b"G")  # ends the keep-alive timer, and must not end all timers
        assert answer(client)[0] == 408


@pytest.mark.parametrize(
    "head", [b"Content-Length: 1000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"]
)
def test_a_body_that_does_not_come(front, head):
    with connection(front) as client:
        client.sendall(PREDICT + head + (b'3\r\n{"i\r\n' if b"chunked" in head else b"{"))
        status, _, document = answer(client)
        assert (status, document["code"]) == (408, "request_timeout")


def test_a_declared_body_over_the_limit_is_refused_unread(front):
    with connection(front) as client:
        client.sendall(PREDICT + b"Content-Length: 200001\r\n\r\n")
        status, headers, document = answer(client)
        assert (status, document["code"]) == (413, "too_large")
        assert headers["connection"] == "close"


def test_a_chunked_body_over_the_limit_is_refused_on_the_way(front):
    with connection(front) as client:
        client.sendall(PREDICT + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(25):
                client.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        assert answer(client)[0] == 413


def test_bodies_together_have_a_limit(front):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connection(front)) for _ in range(5)]
        for client in clients:
            client.sendall(PREDICT + b"Content-Length: 190000\r\n\r\n{")
        outcomes = [answer(client) for client in clients]
    codes = sorted(status for status, _, _ in outcomes)
    assert codes == [408, 408, 408, 429, 429]  # three fit; none is ever completed
    assert all(headers["retry-after"] == "1" for status, headers, _ in outcomes if status == 429)
    until(lambda: front.server.buffered.size == 0)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 50_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 50_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5_000 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Endless: " + b"a" * 50_000,
    ],
    ids=["long header", "long url", "many headers", "endless header"],
)
def test_headers_over_the_limit(front, head):
    with connection(front) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(head)
        with contextlib.suppress(ConnectionError):
            assert answer(client)[0] in (431, None)
    assert alive(front)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        PREDICT + b"Content-Length: -1\r\n\r\n",
        PREDICT + b"Content-Length: 99999999999999999999\r\n\r\n",
        PREDICT + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"FOO / HTTP/1.1\r\n\r\n",
        b"\x00" * 100,
    ],
)
def test_what_is_no_http_is_answered_so(front, sent):
    with connection(front) as client:
        client.sendall(sent)
        status, _, document = answer(client)
        assert status in (400, 404, 408)
        assert document["code"] in ("invalid_request", "not_found", "request_timeout")
    assert alive(front)


def test_an_upgrade_is_not_taken_up(front):
    with connection(front) as client:
        client.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        assert answer(client)[0] == 200


def test_pipelined_requests_are_answered_in_order(front):
    with connection(front) as client:
        client.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        reader = client.makefile("rb")
        text = b""
        while b"not_found" not in text:
            text += reader.read1()
    assert text.index(b"200 OK") < text.index(b"404 Not Found")


def test_who_hangs_up_is_not_worked_for(front):
    before = front.engine.cancelled
    front.call(front.engine.gate.clear)
    try:
        with connection(front) as client:
            client.sendall(PREDICT + b"Content-Type: image/png\r\nContent-Length: 8\r\n\r\n" + PNG)
            until(lambda: front.engine.waiting == 1)
        until(lambda: front.engine.cancelled == before + 1)
        assert front.engine.waiting == 0
    finally:
        front.call(front.engine.gate.set)


def test_a_body_counts_until_it_is_answered(front):
    until(lambda: front.server.buffered.size == 0)
    front.call(front.engine.gate.clear)
    try:
        with connection(front) as client:
            client.sendall(PREDICT + b"Content-Type: image/png\r\nContent-Length: 8\r\n\r\n" + PNG)
            until(lambda: front.engine.waiting == 1)
            assert front.server.buffered.size == 8
            front.call(front.engine.gate.set)
            assert answer(client)[0] == 200
    finally:
        front.call(front.engine.gate.set)
    assert front.server.buffered.size == 0


def test_who_hangs_up_half_way_leaves_nothing(front):
    with connection(front) as client:
        client.sendall(PREDICT + b"Content-Length: 1000\r\n\r\n{")
        until(lambda: front.server.buffered.size == 1000)
    until(lambda: front.server.buffered.size == 0)


def test_too_many_connections_are_turned_away(front):
    until(lambda: not front.server._uvicorn.server_state.connections)
    with contextlib.ExitStack() as stack:
        for _ in range(LIMITS.max_connections):
            stack.enter_context(connection(front))
        full = front.server._uvicorn.server_state.connections
        until(lambda: len(full) >= LIMITS.max_connections)
        last = stack.enter_context(connection(front))
        status, headers, document = answer(last)
        assert (status, headers["retry-after"]) == (503, "1")
        assert document["code"] == "unavailable"
    until(lambda: alive(front))


def test_two_hundred_at_once_each_get_their_own(front):
    start = threading.Barrier(200, timeout=30)

    def one(index):
        image = PNG + index.to_bytes(4, "big") * 50
        client = http.client.HTTPConnection("127.0.0.1", front.rest, timeout=30)
        with contextlib.closing(client):
            start.wait()
            headers = {"Content-Type": "image/png", "X-Request-Id": f"r{index}"}
            client.request("POST", "/v1/models/severity:predict", image, headers)
            response = client.getresponse()
            given = json.loads(response.read())["predictions"][0]["probabilities"]
            assert response.getheader("x-request-id") == f"r{index}"
            np.testing.assert_array_equal(np.float32(given), expected(image))

    until(lambda: not front.server._uvicorn.server_state.connections)
    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        list(pool.map(one, range(200)))


@pytest.mark.parametrize("body", [PNG + b"x" * 20, b"{"], ids=["answered", "refused"])
def test_nothing_of_a_request_waits_for_the_collector(front, body):
    """It runs seldom in a server: whatever only it can free adds up, with the body held by it."""
    head = PREDICT + b"Content-Length: %d\r\n\r\n" % len(body)

    def ask():
        with connection(front) as client:
            for _ in range(10):
                client.sendall(head + body)
                assert answer(client)[0] in (200, 400)

    ask()  # what is made once
    gc.collect()
    gc.disable()  # the server runs in this process, and nobody may wait for a collection
    try:
        ask()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert not [one for one in gc.garbage if type(one).__module__ in KEEPERS]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
