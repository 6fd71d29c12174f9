"""Whether a transferred network answers as the original does, seen on a batch of images."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf

from schema.errors import CortexflowError
from trainer.checkpoints.errors import CheckpointError, VerificationError
from trainer.checkpoints.report import Verification
from trainer.checkpoints.transfer import Transferred
from trainer.heads import SupervisedHead

# Two orders of magnitude above what rounding does to a ResNet-152, three below a wrong layer.
TOLERANCE = 1e-3
_SIZE = 64  # pixels of the probe: small, yet every layer but the last group sees several positions
POOLED, PROJECTED, LOGITS = "final_avg_pool", "proj_head_output", "logits_sup"
Outputs = Mapping[str, np.ndarray]


def probe(channels: int) -> np.ndarray:
    """Two images of noise on a gradient, `float32[2, 64, 64, channels]` in [0, 1]."""
    random = np.random.Generator(np.random.PCG64(0))
    ramp = np.linspace(0, 1, _SIZE)[:, None, None]
    noise = random.random((2, _SIZE, _SIZE, channels))
    return ((ramp + noise) / 2).astype(np.float32)


def against_saved_model(
    transferred: Transferred, saved_model: Path | None, channels: int, *, with_head: bool = True
) -> tuple[Verification, int | None]:
    """Compares a transferred network with the SavedModel or TensorFlow 1 module it came from.

    Args:
        transferred: our network.
        saved_model: folder of the original, or None when there is nothing to call.
        channels: of our network; for one, the original sees the same grey image three times.
        with_head: whether the supervised head is wanted, and its logits compared too.

    Returns:
        What was found, and the layer of the projection head that feeds the supervised head
        (`ft_proj_selector`), or None when the original does not tell.

    Raises:
        CheckpointError: the supervised head is wanted, and stands on no layer that is there.
        VerificationError: an output is further off than `TOLERANCE`, or there is a graph, but it
            cannot be called or gives nothing to compare.
    """
    if saved_model is None:
        return Verification(reason="a checkpoint without a model that could be called"), None
    images = probe(channels)
    with _full_precision():
        try:
            theirs = _original(saved_model, np.repeat(images, 3, -1) if channels == 1 else images)
        except CortexflowError:  # among them that the process shall end
            raise
        except Exception as error:  # whatever somebody else's graph may raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise VerificationError(
                _unverifiable(saved_model, f"could not be called ({reason[0]})")
            ) from error
        ours, hiddens = _ours(transferred, images)
        if POOLED not in theirs:
            given = ", ".join(sorted(theirs)) or "nothing"
            raise VerificationError(
                _unverifiable(saved_model, f"gives no {POOLED} (it gives {given})")
            )
        selector = None
        if with_head and LOGITS in theirs and transferred.head is not None:
            selector, ours[LOGITS] = _logits(transferred, hiddens, theirs[LOGITS])
    return compare(ours, theirs, str(saved_model)), selector


def _unverifiable(saved_model: Path, problem: str) -> str:
    return (
        f"{saved_model}: its graph {problem}, so nothing shows that the transferred network "
        "answers as it does. The folder is damaged or not whole: delete it and fetch it again. To "
        "use its weights unverified, name the checkpoint within: "
        f"{saved_model / 'variables' / 'variables'}"
    )


def compare(ours: Outputs, theirs: Outputs, origin: str) -> Verification:
    """Largest differences relative to the largest value, of the outputs that both have.

    Raises:
        VerificationError: one is above `TOLERANCE`, or of another shape.
    """
    errors: dict[str, float] = {}
    for name in [name for name in ours if name in theirs]:
        mine, wanted = ours[name], theirs[name]
        if mine.shape != wanted.shape:
            raise VerificationError(
                f"{origin}: {name} of the original has the shape {list(wanted.shape)}, of the "
                f"transferred network {list(mine.shape)}. They are different networks."
            )
        scale = float(np.abs(wanted).max()) or 1.0
        errors[name] = float(np.abs(mine - wanted).max()) / scale
        if not errors[name] <= TOLERANCE:
            raise VerificationError(
                f"{origin}: the transferred network does not reproduce the original's {name}: "
                f"largest relative error {errors[name]:.2g} on the probe batch, allowed "
                f"{TOLERANCE:g}. Its variables are not what their names say, or its graph is not "
                "SimCLR's; it is not used."
            )
    return Verification(errors)


def _ours(
    transferred: Transferred, images: np.ndarray
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Outputs by the original's names, and every layer that a supervised head might read."""
    encoder = transferred.encoder
    pooled = encoder.backbone(images, training=False)[POOLED]
    outputs = {POOLED: pooled.numpy()}
    hiddens = [outputs[POOLED]]
    if encoder.projection is not None:
        hiddens = [hidden.numpy() for hidden in encoder.projection(pooled, training=False)]
        outputs[PROJECTED] = hiddens[-1]
    return outputs, hiddens


def _logits(
    transferred: Transferred, hiddens: list[np.ndarray], theirs: np.ndarray
) -> tuple[int, np.ndarray]:
    """The layer whose logits are nearest the original's, and those logits."""
    head = transferred.head
    assert head is not None
    fitting = layers_below_head(head, [hidden.shape[1] for hidden in hiddens])
    answers = {layer: head(hiddens[layer]).numpy() for layer in fitting}
    nearest = min(answers, key=lambda layer: float(np.abs(answers[layer] - theirs).max()))
    return nearest, answers[nearest]


def layers_below_head(head: SupervisedHead, widths: Sequence[int]) -> list[int]:
    """Layers that the supervised head may stand on: 0 is the backbone, then the projection's.

    Args:
        head: with its weights.
        widths: features of each layer.

    Raises:
        CheckpointError: none is as wide as the head's kernel is high.
    """
    rows = head.kernel.shape[0]
    fitting = [layer for layer, width in enumerate(widths) if width == rows]
    if not fitting:
        raise CheckpointError(
            f"The supervised head reads {rows} features, and no layer here gives as many (backbone "
            f"and projection layers: {list(widths)}): the checkpoint lacks the projection layer "
            "that it stands on. Leave the class names out to start from the backbone alone."
        )
    return fitting


def _original(folder: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Every vector per image that the original gives, in inference mode."""
    call = _callable(folder)
    outputs = call(tf.constant(images))
    return {
        name: output.numpy()
        for name, output in outputs.items()
        if isinstance(output, tf.Tensor) and output.shape.rank == 2
    }


def _callable(folder: Path) -> Callable[[tf.Tensor], Mapping[str, tf.Tensor]]:
    with _quiet():
        try:
            loaded = tf.saved_model.load(str(folder))
        except (ValueError, RuntimeError):
            # A TensorFlow 1 module has a graph for training (`train`) and one without a tag.
            loaded = tf.saved_model.load(str(folder), tags=[])
    if callable(loaded):
        return lambda images: loaded(images, trainable=False)
    signature = loaded.signatures["default"]

    def answer(images: tf.Tensor) -> Mapping[str, tf.Tensor]:
        # The loaded object owns the variables, so it must live as long as its signature.
        assert loaded is not None
        return signature(images=images)

    return answer


@contextmanager
def _full_precision() -> Iterator[None]:
    """Keeps graphics cards from rounding to 10 bits, which would look like a difference."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides the hundreds of warnings about gradients that the public models did not save."""
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
