"""The servers that are compared: how each is started, asked, and read."""

import base64
import http.client
import json
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MODEL = "student"
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Version:
    """The version that all servers serve.

    Attributes:
        registry: the folder that our server is given.
        model: its name there.
        folder: the version's files.
    """

    registry: Path
    model: str
    folder: Path


@dataclass(frozen=True)
class Request:
    """A POST."""

    path: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Server:
    """One server with one kind of model.

    Attributes:
        name: as it is told.
        kind: `litert` or `savedmodel`.
        whose: `ours` or the peer's name.
        command: port and version → the command line.
        request: an image file and the model's name → the request.
        read: an answer's body → float[C] probabilities.
        needs: path of the interpreter; the server is skipped where it is absent.
        environment: beside what there is.
    """

    name: str
    kind: str
    whose: str
    command: Callable[[int, Version], list[str]]
    request: Callable[[bytes, str], Request]
    read: Callable[[bytes], np.ndarray]
    needs: Path
    environment: dict[str, str]


def ask(port: int, request: Request, timeout: float = 30.0) -> tuple[int, bytes, dict[str, str]]:
    """Sends one request on a connection of its own; status, body and headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", request.path, request.body, request.headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
    finally:
        connection.close()


# ------------------------------------------------------------------ bodies and answers


def b64_json(content: bytes) -> bytes:
    """One instance in TF Serving's form."""
    return json.dumps({"instances": [{"b64": base64.b64encode(content).decode()}]}).encode()


def tf_serving(image: bytes, model: str) -> Request:
    """TF Serving's `:predict`; kserve's v1 protocol has the same."""
    return Request(f"/v1/models/{model}:predict", b64_json(image), JSON)


def litserve_request(image: bytes, model: str) -> Request:
    """The same body, at litserve's path."""
    return Request("/predict", b64_json(image), JSON)


def tf_example(image: bytes, model: str) -> Request:
    """`serving_default` takes a serialized `tf.Example`."""
    from ingest.records import encode_example

    body = b64_json(encode_example({"image": image}))
    return Request(f"/v1/models/{MODEL}:predict", body, JSON)


def triton_request(image: bytes, model: str) -> Request:
    """KServe v2 with the binary extension: the image as it is, after a short JSON header."""
    content = len(image).to_bytes(4, "little") + image
    header = {
        "inputs": [
            {
                "name": "image",
                "shape": [1, 1],
                "datatype": "BYTES",
                "parameters": {"binary_data_size": len(content)},
            }
        ],
        "outputs": [{"name": "probabilities", "parameters": {"binary_data": False}}],
    }
    told = json.dumps(header).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(told)),
    }
    return Request(f"/v2/models/{MODEL}/infer", told + content, headers)


def read_predictions(body: bytes) -> np.ndarray:
    """TF Serving's answer."""
    return np.array(json.loads(body)["predictions"][0]["probabilities"])


def read_triton(body: bytes) -> np.ndarray:
    """KServe v2's answer."""
    return np.array(json.loads(body)["outputs"][0]["data"])


# ------------------------------------------------------------------ who

CORTEXFLOW = Path(sysconfig.get_path("scripts")) / "cortexflow"


def ours(kind: str, *, gate: bool = False, prediction_log: Path | None = None) -> Server:
    """`cortexflow serve`."""

    def command(port: int, version: Version) -> list[str]:
        runtime = {"litert": "litert-int8", "savedmodel": "savedmodel"}[kind]
        options = ["--registry", str(version.registry), "--rest-port", str(port)]
        options += ["--runtime", runtime, "--input-gate" if gate else "--no-input-gate"]
        if prediction_log is not None:
            options += ["--prediction-log", str(prediction_log)]
        return [str(CORTEXFLOW), "serve", *options, "--set", "grpc_port=null"]

    name = "ours with input gate" if gate else "ours"
    return Server(name, kind, "ours", command, tf_serving, read_predictions, CORTEXFLOW, {})


def kserve(kind: str, python: Path) -> Server:
    """kserve's v1 protocol."""
    return _peer("kserve", kind, python, tf_serving, read_predictions)


def litserve(kind: str, python: Path) -> Server:
    """litserve, batching on."""
    return _peer("litserve", kind, python, litserve_request, read_predictions)


def triton(kind: str, python: Path) -> Server:
    """Triton with pytriton; its stub needs the libpython of the environment's interpreter."""
    return _peer("triton", kind, python, triton_request, read_triton, libpython=True)


def tfx(python: Path) -> Server:
    """TF Serving's REST protocol on `serving_default`."""
    return _peer("tfx", "savedmodel", python, tf_example, read_predictions)


def _peer(
    whose: str,
    kind: str,
    python: Path,
    request: Callable[[bytes, str], Request],
    read: Callable[[bytes], np.ndarray],
    *,
    libpython: bool = False,
) -> Server:
    def command(port: int, version: Version) -> list[str]:
        module = f"benchmarks.serving_peers.{whose}_server"
        return [str(python), "-m", module, str(port), kind, str(version.folder)]

    environment = {"LD_LIBRARY_PATH": libraries(python)} if libpython and python.exists() else {}
    return Server(whose, kind, whose, command, request, read, python, environment)


def libraries(python: Path) -> str:
    """The folder of an interpreter's own libpython."""
    code = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()
