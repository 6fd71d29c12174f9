"""What TFX pushes, served as TF Serving would: its REST protocol on `serving_default`.

    python -m benchmarks.serving_peers.tfx_server PORT savedmodel FOLDER

The `tensorflow_model_server` binary is in no package index. This is the least that speaks its
protocol in Python: uvicorn on uvloop and httptools, orjson, one call of the SavedModel's signature
per request in a pool of threads, no log, the heap frozen. An instance is a serialized `tf.Example`.
It runs in .serve-env, without the project's server.
"""

import asyncio
import base64
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import uvicorn

from benchmarks.serving_peers import models

HEADERS = [(b"content-type", b"application/json")]


def application(answer: models.Answer, pool: ThreadPoolExecutor):
    """An ASGI application for `/v1/models/student:predict`."""

    async def app(scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message["body"]
            more = message.get("more_body", False)
        instances = orjson.loads(body)["instances"]
        files = [base64.b64decode(each["b64"]) for each in instances]
        rows = await asyncio.get_running_loop().run_in_executor(pool, answer, files)
        content = orjson.dumps({"predictions": [{"probabilities": row} for row in rows.tolist()]})
        length = (b"content-length", str(len(content)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, length]})
        await send({"type": "http.response.body", "body": content})

    return app


def main(port: int, folder: Path) -> None:
    import tensorflow as tf

    answer = models.saved_model(folder, "serving_default")
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[models.black()]))
    features = tf.train.Features(feature={"image": feature})
    for _ in range(3):
        answer([tf.train.Example(features=features).SerializeToString()])
    models.quiet()
    uvicorn.run(
        application(answer, ThreadPoolExecutor(models.threads())),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="error",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[3]))
