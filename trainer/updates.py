"""One optimizer step over a global batch: shared by replicas, saved memory for, compiled.

Each replica gathers, augments and steps its own rows only, and the outcome is that of one replica
working on the whole batch: gradients are those of the mean over the batch, scalars are means, and
random numbers belong to images (`trainer.draws`).
"""

import logging
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trainer import sharpness
from trainer.config import ExecutionSettings, OptimizerSettings
from trainer.draws import Draw
from trainer.errors import StageError, WorkerLost

LOG = logging.getLogger(__name__)

# (`int32[rows]` indices of images, source of randomness) → what the objective takes: tensors whose
# first axis are those rows. Views are drawn here, once a step, outside of what XLA compiles.
Prepare = Callable[[tf.Tensor, Draw], tuple[Any, ...]]
# (what was prepared) → (loss, other scalars to be told), means over the rows
Objective = Callable[..., tuple[tf.Tensor, dict[str, tf.Tensor]]]

# What TensorFlow raises when a worker that others wait for is gone.
_GONE = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


def as_given(indices: tf.Tensor, draw: Draw) -> tuple[Any, ...]:
    """Leaves it to the objective to gather and augment."""
    return indices, draw


def together(strategy: tf.distribute.Strategy, compute: Callable[..., Any], *args: Any) -> Any:
    """Calls what all workers compute together.

    Raises:
        WorkerLost: another worker is gone.
    """
    try:
        return compute(*args)
    except _GONE as error:
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise
        message = (
            f"Another worker of this training is gone (received: {type(error).__name__}). Start "
            "all workers again: they go on from the last saved state."
        )
        LOG.error(message)  # whoever starts workers may tell the exit code alone
        raise WorkerLost(message) from error


class Update:
    """The step of a training, called once for each batch.

    With `accumulate` of A, a batch is worked on in A equal parts, one after the other, and their
    gradients are averaged before the one step. What an image is compared with then is its part of
    the batch: contrastive negatives, batch statistics, the count of labelled images that a loss is
    divided by, and the point where sharpness is measured (m-sharpness; Foret et al. 2021, section
    4.1). Moving statistics are updated A times.

    Args:
        strategy: of the replicas.
        settings: `accumulate` and `xla` are looked at.
        model: its trainable variables are updated.
        optimizer: built for them.
        objective: the loss.
        prepare: what the objective takes.
        follow: settings of the optimizer, of which `sharpness` and `rho` are looked at.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        settings: ExecutionSettings,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        objective: Objective,
        prepare: Prepare,
        follow: OptimizerSettings,
    ):
        self._strategy = strategy
        self._replicas = strategy.num_replicas_in_sync
        self._parts = settings.accumulate
        self._variables = list(model.trainable_variables)
        self._optimizer = optimizer
        self._objective = objective
        self._prepare = prepare
        self._follow = follow
        self._names: list[str] = []
        # A TPU runs nothing but what XLA compiles, and XLA cannot compile all of augmentation.
        self._prepares_on_host = isinstance(strategy, tf.distribute.TPUStrategy)
        self._slopes = (
            tf.function(self._slopes_of, jit_compile=True) if settings.xla else (self._slopes_of)
        )
        self._sums: list[tf.Variable] = []
        if self._parts > 1:
            with strategy.scope():
                self._sums = [
                    tf.Variable(
                        tf.zeros(variable.shape),
                        trainable=False,
                        synchronization=tf.VariableSynchronization.ON_READ,
                        aggregation=tf.VariableAggregation.SUM,
                    )
                    for variable in self._variables
                ]

    def __call__(self, indices: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Makes one step.

        Args:
            indices: `int32[batch]`, the global batch, equal on all workers.
            seed: `int32[2]`, equal on all workers.

        Returns:
            Means over the batch: `loss` and what else the objective tells.

        Raises:
            StageError: the batch does not divide by replicas and parts.
            WorkerLost: another worker is gone.
        """
        shares = self._replicas * self._parts
        batch = int(indices.shape[0])
        if batch % shares:
            lower = batch // shares * shares
            raise StageError(
                f"A batch of {batch} images does not divide by {self._replicas} replica(s) × "
                f"{self._parts} accumulated part(s). Set batch_size to "
                f"{f'{lower} or ' if lower else ''}{lower + shares}, and not above the number of "
                "images, or change execution.replicas or execution.accumulate."
            )
        run = self._run_from_host if self._prepares_on_host else self._run
        return together(self._strategy, run, indices, seed)

    @tf.function
    def _run(self, indices: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        if self._parts == 1:
            told = self._strategy.run(self._prepare_and, args=(self._update, indices, seed, 0))
            return self._named(self._mean(told))
        rows = tf.TensorArray(tf.float32, self._parts, element_shape=tf.TensorShape(None))

        def body(part, rows):
            told = self._strategy.run(self._prepare_and, args=(self._add, indices, seed, part))
            return part + 1, rows.write(part, self._mean(told))

        # One part at a time, or no memory would be saved.
        _, rows = tf.while_loop(
            lambda part, rows: part < self._parts, body, (0, rows), parallel_iterations=1
        )
        self._strategy.run(self._apply_sums)
        return self._named(tf.reduce_mean(rows.stack(), axis=0))

    def _run_from_host(self, indices: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = []
        for part in range(self._parts):
            prepared = self._strategy.experimental_distribute_values_from_function(
                lambda context, part=part: self._prepared_on_host(
                    indices, seed, part, context.replica_id_in_sync_group
                )
            )
            rows.append(self._run_prepared(prepared))
        if self._parts > 1:
            self._finish()
        return self._named(tf.reduce_mean(tf.stack(rows), axis=0))

    @tf.function
    def _prepared_on_host(self, indices, seed, part, replica):
        with tf.device("CPU:0"):
            return self._prepared(indices, seed, part, replica)

    @tf.function
    def _run_prepared(self, prepared):
        step = self._update if self._parts == 1 else self._add
        return self._mean(self._strategy.run(step, args=prepared))

    @tf.function
    def _finish(self):
        self._strategy.run(self._apply_sums)

    # What follows runs on each replica.

    def _prepare_and(self, step, indices, seed, part):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return step(*self._prepared(indices, seed, part, replica))

    def _prepared(self, indices, seed, part, replica):
        batch = indices.shape[0]
        rows = batch // (self._replicas * self._parts)
        if rows == batch:
            return self._prepare(indices, Draw(seed))
        first = part * (batch // self._parts) + replica * rows
        return self._prepare(tf.slice(indices, [first], [rows]), Draw(seed, first))

    def _update(self, *prepared):
        slopes, told = self._slopes(*prepared)
        self._optimizer.apply(slopes, self._variables)
        return self._stacked(told)

    def _add(self, *prepared):
        slopes, told = self._slopes(*prepared)
        for total, slope in zip(self._sums, slopes, strict=True):
            if slope is not None:
                total.assign_add(slope)
        self._idle = [slope is None for slope in slopes]
        return self._stacked(told)

    def _apply_sums(self):
        means = [
            None if idle else tf.convert_to_tensor(total) / self._parts
            for total, idle in zip(self._sums, self._idle, strict=True)
        ]
        self._optimizer.apply(means, self._variables)
        for total in self._sums:
            total.assign(tf.zeros(total.shape))

    def _slopes_of(self, *prepared):
        """This replica's share of the gradients, which the optimizer sums, and its scalars."""
        with tf.GradientTape() as tape:
            loss, told = self._objective(*prepared)
            share = loss / self._replicas
        slopes = tape.gradient(share, self._variables)
        if self._follow.sharpness != "none":
            slopes = self._slopes_at_worst(prepared, slopes)
        return slopes, {"loss": loss, **told}

    def _slopes_at_worst(self, prepared, slopes):
        if self._replicas > 1:
            context = tf.distribute.get_replica_context()
            slopes = [
                tf.zeros(v.shape) if s is None else s
                for v, s in zip(self._variables, slopes, strict=True)
            ]
            slopes = context.all_reduce(tf.distribute.ReduceOp.SUM, slopes)
        worst = sharpness.worst_point(self._follow, self._variables, slopes)
        # Within, the variables read as their worst values. Nothing is assigned: weights need no
        # restoring, and moving statistics are those of the first pass.
        instead = list(zip(self._variables, worst, strict=True))
        with tf.GradientTape() as tape:
            tape.watch(worst)
            with keras.StatelessScope(instead, initialize_variables=False):
                loss, _ = self._objective(*prepared)
            share = loss / self._replicas
        return tape.gradient(share, worst)

    def _stacked(self, told):
        self._names = list(told)
        return tf.stack([tf.cast(value, tf.float32) for value in told.values()])

    # Across replicas again.

    def _mean(self, told):
        return self._strategy.reduce(tf.distribute.ReduceOp.MEAN, told, axis=None)

    def _named(self, told):
        return dict(zip(self._names, tf.unstack(told, len(self._names)), strict=True))
