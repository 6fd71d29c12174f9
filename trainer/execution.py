"""How a step is computed: on which replicas, in what precision, compiled how.

A stage says what a batch costs (`Objective`); this room turns that into one compiled update. The
stages know nothing of replicas, and a model nothing of how it was trained.
"""

import contextlib
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from trainer.config import ExecutionSettings, InputSettings, Settings
from trainer.draws import Draw

# (`int32[rows]` indices of images, source of randomness) → (loss, other scalars to be told)
Objective = Callable[[tf.Tensor, Draw], tuple[tf.Tensor, dict[str, tf.Tensor]]]
# (`int32[batch]` indices of a global batch, `int32[2]` seed) → scalars, among them `loss`
Step = Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]


class Execution:
    """Settings made real.

    Args:
        settings: strategy, precision, compilation.
    """

    def __init__(self, settings: ExecutionSettings):
        self.settings = settings

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what the workers share: states, logs, the model."""
        return True

    def any_worker(self, flag: bool) -> bool:
        """Whether any worker raises the flag; all workers must ask, and all hear the same."""
        return flag

    def release(
        self, kind: str, architecture: Settings, settings: InputSettings, model: keras.Model
    ) -> keras.Model:
        """The trained network as it is kept: float32, of no strategy, with the same weights."""
        return model

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Networks and optimizers of a training are made within."""
        yield

    def compile(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        objective: Objective,
    ) -> Step:
        """Makes the update of a training: loss, gradients of the model's variables, one step."""

        @tf.function
        def step(indices: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
            with tf.GradientTape() as tape:
                loss, told = objective(indices, Draw(seed))
            variables = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return {"loss": loss, **told}

        return step
