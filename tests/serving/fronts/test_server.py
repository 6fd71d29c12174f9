"""The process: how it begins, how it ends, and what it never loads."""

import concurrent.futures
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from memory_engine import PNG, serving, until

from serving.server import ServerError

PROGRAM = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from memory_engine import MemoryEngine
from serving.config import ServerSettings
from serving.server import run

engine = MemoryEngine()
engine.gate = asyncio.Event()  # requests wait until a file appears
settings = ServerSettings.model_validate(json.loads(sys.argv[2]))

async def open_gate():
    while not (settings.registry / "go").exists():
        await asyncio.sleep(0.01)
    engine.gate.set()

def announce(server):
    heavy = sorted({"tensorflow", "keras", "tfx"} & set(sys.modules))
    print(json.dumps({"rest": server.rest_port, "heavy": heavy}), flush=True)
    engine.task = asyncio.get_running_loop().create_task(open_gate())

sys.exit(run(settings, announce, engine))
"""


class Process:
    """A server process on an engine whose answers wait for the file `go`."""

    def __init__(self, folder, **settings):
        self.folder = folder
        document = {"registry": str(folder), "rest_port": 0, "grpc_port": 0, **settings}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), json.dumps(document)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        self.told = json.loads(self.process.stdout.readline())

    def ask(self, method, path, body=None):
        client = http.client.HTTPConnection("127.0.0.1", self.told["rest"], timeout=30)
        client.request(method, path, body, {"Content-Type": "image/png"})
        response = client.getresponse()
        return response.status, response.read()

    def deaf(self):
        """Whether nothing new is accepted."""
        try:
            self.ask("GET", "/readyz")
        except (OSError, http.client.HTTPException):
            return True
        return False

    def queued(self):
        text = self.ask("GET", "/metrics")[1].decode()
        return float(text.split("\ncortexflow_queued_images ")[1].split()[0])

    def end(self):
        """Exit code and the log's events."""
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, [json.loads(line)["event"] for line in errors.splitlines()]


@pytest.fixture
def start(tmp_path):
    started = []

    def starting(**settings):
        started.append(Process(tmp_path, **settings))
        return started[-1]

    yield starting
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def waiting_request(server, pool):
    answer = pool.submit(server.ask, "POST", "/v1/models/severity:predict", PNG + bytes(9))
    until(lambda: server.queued() == 1)
    return answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_end(start, tmp_path, number):
    server = start(prediction_log=str(tmp_path / "log"))
    assert server.told["heavy"] == []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = waiting_request(server, pool)
        server.process.send_signal(number)
        until(server.deaf)
        (tmp_path / "go").touch()
        assert answer.result(30)[0] == 200
    code, events = server.end()
    assert code == 0
    assert events[-3:] == ["signal", "stopping", "stopped"]
    assert len(list((tmp_path / "log").glob("span-1/*.gz"))) == 1


def test_a_request_that_takes_too_long_is_told_so(start):
    server = start(drain_seconds=1.0)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = waiting_request(server, pool)
        server.process.send_signal(signal.SIGTERM)
        status, body = answer.result(30)
    assert (status, json.loads(body)["code"]) == (503, "unavailable")
    assert server.end()[0] == 0


def test_a_second_signal_does_not_wait(start):
    server = start(drain_seconds=50.0)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = waiting_request(server, pool)
        server.process.send_signal(signal.SIGTERM)
        until(server.deaf)
        server.process.send_signal(signal.SIGTERM)
        assert isinstance(answer.exception(30), (OSError, http.client.HTTPException))
    assert server.end()[0] == 128 + signal.SIGTERM


@pytest.mark.parametrize("which", ["rest", "grpc"])
def test_a_taken_port_is_told(tmp_path, which):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        trying = serving(tmp_path, **{f"{which}_port": port})
        with pytest.raises(ServerError, match=f"--{which}-port"):
            trying.__enter__()


def test_either_front_can_be_off(tmp_path):
    with serving(tmp_path, rest_port=None) as front:
        assert front.rest is None
        assert front.grpc
    with serving(tmp_path, grpc_port=None) as front:
        assert front.grpc is None
        assert front.rest
