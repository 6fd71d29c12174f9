"""One process of a training, started by `test_workers.py`: `worker.py JOB.json …`.

A job holds the attributes of TFX's FnArgs. Printed are lines of JSON: the loss of each step, the
number of each epoch, and the weights in the end.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace


def tell(**news):
    print(json.dumps(news), flush=True)


def main(paths):
    from trainer import run_fn
    from trainer.execution import Execution

    compile_step = Execution.compile

    def telling(self, *args, **kwargs):
        step = compile_step(self, *args, **kwargs)

        def told(indices, seed):
            scalars = step(indices, seed)
            tell(stage=stage, loss=float(scalars["loss"]))
            return scalars

        return told

    Execution.compile = telling
    for path in paths:
        job = run_fn.read_job(SimpleNamespace(**json.loads(Path(path).read_text())))
        stage = job.settings.stage
        trained = run_fn.train_and_export(
            job, lambda stage, epoch, epochs, metrics: tell(stage=stage, epoch=epoch)
        )
        weights = [float(abs(weight).sum()) for weight in trained.model.get_weights()]
        tell(stage=stage, weights=weights, chief=Execution(job.settings.execution).is_chief)


if __name__ == "__main__":
    main(sys.argv[1:])
