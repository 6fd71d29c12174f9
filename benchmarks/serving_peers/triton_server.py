"""NVIDIA's Triton by pytriton, its own C++ front and batcher; run in .serve-env.

    python -m benchmarks.serving_peers.triton_server PORT KIND FOLDER

Set for speed: dynamic batches of up to 32 with no delay, no gRPC, no metrics. pytriton computes in
this process, one thread per function bound: as many as cores for LiteRT, one for TensorFlow, which
has threads of its own. `LD_LIBRARY_PATH` must lead to libpython, which its stub is linked with.
"""

import sys
from pathlib import Path

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.serving_peers import models

MAX_BATCH = 32


def inference(kind: str, folder: Path):
    """An inference function with a model of its own."""
    answer = models.load(kind, folder)

    @batch
    def infer(image: np.ndarray) -> dict[str, np.ndarray]:
        return {"probabilities": answer(image[:, 0].tolist())}

    return infer


def main(port: int, kind: str, folder: Path, instances: int) -> None:
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=port,
        allow_grpc=False,
        allow_metrics=False,
        log_verbose=0,
        http_thread_count=2,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="student",
            infer_func=[inference(kind, folder) for _ in range(instances)],
            inputs=[Tensor(name="image", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(
                batching=True,
                max_batch_size=MAX_BATCH,
                batcher=DynamicBatcher(max_queue_delay_microseconds=0),
            ),
        )
        models.quiet()
        triton.serve()


if __name__ == "__main__":
    kind = sys.argv[2]
    main(int(sys.argv[1]), kind, Path(sys.argv[3]), models.threads() if kind == "litert" else 1)
