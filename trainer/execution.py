"""How a step is computed: on which replicas, in what precision, compiled how.

A stage says what a batch costs (`Objective`); this room turns that into one compiled update. The
stages know nothing of replicas, and a model nothing of how it was trained.
"""

import contextlib
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from trainer import architectures, strategies, updates
from trainer.config import ExecutionSettings, InputSettings, OptimizerSettings, Settings
from trainer.errors import StageError
from trainer.updates import Objective, Prepare

# (`int32[batch]` indices of a global batch, `int32[2]` seed) → scalars, among them `loss`
Step = Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


class Execution:
    """Settings made real.

    The first of a process joins the workers and divides the devices, which TensorFlow allows
    before it computes anything only: make it before models and data are read.

    Args:
        settings: strategy, precision, compilation.

    Raises:
        StageError: the devices or workers asked for are not there, TensorFlow has started already,
            or the settings do not go together.
    """

    def __init__(self, settings: ExecutionSettings):
        if settings.deterministic:
            tf.config.experimental.enable_op_determinism()
        self.settings = settings
        self.strategy = strategies.connect(settings)
        if settings.xla and self.strategy.num_replicas_in_sync > 1 and settings.strategy != "tpu":
            raise StageError(
                f"execution.xla=true with {self.strategy.num_replicas_in_sync} replicas (received "
                f"strategy={settings.strategy}): sums over replicas inside a step, which batch "
                "normalisation and the contrastive loss need, cannot be compiled by XLA. Set "
                "execution.xla to false, or execution.strategy to none."
            )

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what the workers share: states, logs, the model."""
        return self.strategy.extended.should_checkpoint

    @property
    def _has_peers(self) -> bool:
        return isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy)

    def any_worker(self, flag: bool) -> bool:
        """Whether any worker raises the flag; all workers must ask, and all hear the same.

        Raises:
            WorkerLost: another worker is gone.
        """
        if not self._has_peers:
            return flag
        return float(self._sum(float(flag))) > 0

    def wait_for_all(self) -> None:
        """Returns when every worker has called it: none may leave while others need it.

        Raises:
            WorkerLost: another worker is gone.
        """
        self.any_worker(False)

    def agree(self, what: str, number: int) -> None:
        """Makes sure that all workers hold the same number; all must ask.

        Raises:
            StageError: they do not.
            WorkerLost: another worker is gone.
        """
        if not self._has_peers:
            return
        mean = float(self._sum(float(number))) / self.strategy.num_replicas_in_sync
        if self.any_worker(mean != number):
            raise StageError(
                f"The workers disagree on {what}: this one has {number}, the mean is {mean:g}. "
                "Give all workers the same data, settings and folder of checkpoints."
            )

    def _sum(self, number: float) -> tf.Tensor:
        return updates.together(self.strategy, self._summed, tf.constant(number))

    @tf.function
    def _summed(self, number: tf.Tensor) -> tf.Tensor:
        return self.strategy.reduce(
            tf.distribute.ReduceOp.SUM, self.strategy.run(tf.identity, args=(number,)), axis=None
        )

    def release(
        self, kind: str, architecture: Settings, settings: InputSettings, model: keras.Model
    ) -> keras.Model:
        """The trained network as it is kept: float32, of no strategy, with the same weights."""
        plain = self.settings.precision == "float32" and self.settings.strategy == "none"
        if plain:
            return model
        kept = architectures.build(kind, architecture, settings)
        kept.set_weights(model.get_weights())
        return kept

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Networks and optimizers of a training are made within."""
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(_POLICIES[self.settings.precision])
        try:
            with self.strategy.scope():
                yield
        finally:
            keras.config.set_dtype_policy(before)

    def compile(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        objective: Objective,
        *,
        prepare: Prepare = updates.as_given,
        follow: OptimizerSettings | None = None,
    ) -> Step:
        """Makes the update of a training: loss, gradients of the model's variables, one step.

        Args:
            model: built within `scope`.
            optimizer: built within `scope`, for the model's trainable variables.
            objective: what was prepared → (loss, other scalars), means over the rows at hand.
            prepare: (`int32[rows]` indices, their draw) → what the objective takes. Gathering and
                augmentation belong here: XLA cannot compile them, and sharpness-aware steps call
                the objective twice on the same views. By default the objective takes both as given.
            follow: settings of the optimizer, for `sharpness` and `rho`; by default the gradient
                is taken at the weights.

        Returns:
            The step; see `trainer.updates.Update`.
        """
        return updates.Update(
            self.strategy,
            self.settings,
            model,
            optimizer,
            objective,
            prepare,
            follow or OptimizerSettings(),
        )
