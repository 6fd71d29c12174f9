"""kserve's model server with its v1 protocol; run in .serve-env.

    python -m benchmarks.serving_peers.kserve_server PORT KIND FOLDER

Set for speed: uvloop (its own default is asyncio's loop), no line of log per request, no gRPC, the
heap frozen after loading. The model computes in a pool of threads, one per core: on the event
loop's own thread, as kserve's examples have it, both kinds of model answered fewer requests.
"""

import asyncio
import base64
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kserve
import uvloop

from benchmarks.serving_peers import models


class Student(kserve.Model):
    """The student under the name `student`."""

    def __init__(self, kind: str, folder: Path):
        super().__init__("student")
        self._answer = models.load(kind, folder)
        self._pool = ThreadPoolExecutor(models.threads())
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        files = [base64.b64decode(each["b64"]) for each in payload["instances"]]
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self._pool, self._answer, files)
        return {"predictions": [{"probabilities": row} for row in rows.tolist()]}


def main(port: int, kind: str, folder: Path) -> None:
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.set_event_loop(asyncio.new_event_loop())  # kserve asks for one before it runs any
    server = kserve.ModelServer(
        http_port=port, workers=1, enable_grpc=False, enable_latency_logging=False
    )
    for name in ("uvicorn.access", "uvicorn.error", "kserve", "kserve.trace", "access"):
        logging.getLogger(name).setLevel(logging.ERROR)
    student = Student(kind, folder)
    models.quiet()
    server.start([student])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
