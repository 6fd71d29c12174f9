"""LARS: layer-wise adaptive rate scaling (You, Gitman & Ginsburg 2017, arXiv:1708.03888)."""

from collections.abc import Iterable

import keras
from keras import ops


@keras.saving.register_keras_serializable("cortexflow")
class LARS(keras.optimizers.Optimizer):
    """SGD with momentum whose step in each variable is proportional to the variable's norm.

    For a variable w with gradient g: g += weight_decay · w; trust = eeta · ‖w‖ / ‖g‖, or 1 when
    either norm is zero; v = momentum · v + learning_rate · trust · g; w -= v. As in the public
    SimCLR code there is no epsilon. Norms are taken in float32.

    Args:
        learning_rate: a float or a schedule.
        momentum: in [0, 1).
        weight_decay: coefficient of the L2 term, added to the gradient before its norm is taken.
        eeta: the trust coefficient.
        nesterov: look one step of momentum ahead.
        classic_momentum: scale the gradient before it enters the momentum (the paper); if False,
            the momentum's direction is scaled instead.

    Variables are excluded as objects, since Keras 3 names tell nothing about the layer. Exclusions
    are not part of `get_config`: call `exclude` again on a rebuilt optimizer.
    """

    def __init__(
        self,
        learning_rate=0.1,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eeta: float = 0.001,
        nesterov: bool = False,
        classic_momentum: bool = True,
        name: str = "lars",
        **kwargs,
    ):
        # The base class's weight decay is decoupled (AdamW); this one belongs to the gradient.
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.l2 = weight_decay
        self.eeta = eeta
        self.nesterov = nesterov
        self.classic_momentum = classic_momentum
        self._undecayed: tuple[str, ...] = ()
        self._unadapted: tuple[str, ...] = ()

    def exclude(
        self,
        variables: Iterable[keras.Variable],
        *,
        weight_decay: bool = True,
        adaptation: bool = True,
    ) -> None:
        """Leaves variables out of weight decay, of layer adaptation, or of both.

        Call before the first step: a traced training step keeps the groups it was traced with.
        """
        keys = tuple(self._var_key(variable) for variable in variables)
        if weight_decay:
            self._undecayed += keys
        if adaptation:
            self._unadapted += keys

    def build(self, variables) -> None:
        """Creates a momentum slot for each of the variables."""
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient, variable, learning_rate) -> None:
        """Applies one step to one variable."""
        slot = self.momentums[self._get_variable_index(variable)]
        weights = ops.cast(variable, "float32")
        gradient = ops.cast(gradient, "float32")
        velocity = ops.cast(slot, "float32")
        rate = ops.cast(learning_rate, "float32")
        key = self._var_key(variable)
        if self.l2 and key not in self._undecayed:
            gradient = gradient + self.l2 * weights
        adapted = key not in self._unadapted
        if self.classic_momentum:
            push = rate * (self._trust(weights, gradient) if adapted else 1.0) * gradient
            velocity = self.momentum * velocity + push
            step = self.momentum * velocity + push if self.nesterov else velocity
        else:
            velocity = self.momentum * velocity + gradient
            step = self.momentum * velocity + gradient if self.nesterov else velocity
            step = rate * (self._trust(weights, step) if adapted else 1.0) * step
        self.assign(slot, velocity)
        self.assign_sub(variable, step)

    def _trust(self, weights, direction):
        weight_norm = ops.norm(ops.reshape(weights, (-1,)))
        direction_norm = ops.norm(ops.reshape(direction, (-1,)))
        defined = ops.logical_and(weight_norm > 0, direction_norm > 0)
        # The inner `where` keeps the division finite on the side that is not taken.
        safe_norm = ops.where(defined, direction_norm, ops.ones_like(direction_norm))
        return ops.where(defined, self.eeta * weight_norm / safe_norm, 1.0)

    def get_config(self):
        """The constructor's arguments; excluded variables are not among them."""
        return super().get_config() | {
            "momentum": self.momentum,
            "weight_decay": self.l2,
            "eeta": self.eeta,
            "nesterov": self.nesterov,
            "classic_momentum": self.classic_momentum,
        }
