"""litserve with its batching; run in .serve-env.

    python -m benchmarks.serving_peers.litserve_server PORT KIND FOLDER

Set for speed: batches of up to 16 of what waits (to wait for company made it slower), its fast
queue (ZeroMQ), no request tracking, no access log, the heaps of all processes frozen. Workers as
its documentation advises for CPUs: one per core for LiteRT; one for TensorFlow, which has threads
of its own.
"""

import base64
import sys
from pathlib import Path

import litserve

from benchmarks.serving_peers import models

MAX_BATCH = 16


class StudentAPI(litserve.LitAPI):
    """The student at `/predict`, one instance per request."""

    def __init__(self, kind: str, folder: Path, **settings):
        super().__init__(**settings)
        self._kind, self._folder = kind, folder

    def setup(self, device):
        self._answer = models.load(self._kind, self._folder)
        models.quiet()

    def decode_request(self, request):
        [instance] = request["instances"]
        return base64.b64decode(instance["b64"])

    def batch(self, inputs):
        return inputs

    def predict(self, files):
        return self._answer(files).tolist()

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {"predictions": [{"probabilities": output}]}


def main(port: int, kind: str, folder: Path, workers: int) -> None:
    api = StudentAPI(kind, folder, max_batch_size=MAX_BATCH, batch_timeout=0.0)
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=workers,
        fast_queue=True,
        track_requests=False,
        disable_openapi_url=True,
    )
    models.quiet()
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=1,
        log_level="error",
        generate_client_file=False,
        access_log=False,
    )


if __name__ == "__main__":
    kind = sys.argv[2]
    main(int(sys.argv[1]), kind, Path(sys.argv[3]), models.threads() if kind == "litert" else 1)
