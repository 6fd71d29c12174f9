"""Losses of the three stages: contrastive, cross-entropy, distillation."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# Subtracted from an example's similarity to itself; the public SimCLR code's constant.
_SELF_SIMILARITY = 1e9


def nt_xent(hidden1, hidden2, temperature: float, *, normalize: bool = True):
    """Normalised-temperature cross-entropy between two views (SimCLR, section 2.1).

    Each view's embedding must recognise the other view's among all 2N - 1 others. Inside a replica
    context of several replicas the others come from all of them, and gradients flow through them.

    Args:
        hidden1: [N, D], embeddings of the first view.
        hidden2: [N, D], embeddings of the second view, row by row of the same images.
        temperature: divides the similarities.
        normalize: scale embeddings to unit length first.

    Returns:
        float32 scalar: mean over N of both directions' sum, twice the paper's mean over 2N, as in
        the public code.
    """
    labels, same1, cross12, same2, cross21 = _similarities(hidden1, hidden2, temperature, normalize)
    forth = _cross_entropy(labels, tf.concat([cross12, same1], 1))
    back = _cross_entropy(labels, tf.concat([cross21, same2], 1))
    return tf.reduce_mean(forth + back)


def contrastive_accuracy(hidden1, hidden2):
    """Share of first views whose nearest embedding, among all others, is their second view.

    Args:
        hidden1: [N, D], embeddings of the first view.
        hidden2: [N, D], embeddings of the second view.

    Returns:
        float32 scalar in [0, 1].
    """
    labels, same1, cross12, _, _ = _similarities(hidden1, hidden2, 1.0, True)
    nearest = tf.argmax(tf.concat([cross12, same1], 1), axis=1, output_type=labels.dtype)
    return tf.reduce_mean(tf.cast(nearest == labels, tf.float32))


def _similarities(hidden1, hidden2, temperature: float, normalize: bool):
    hidden1, hidden2 = (tf.cast(hidden, tf.float32) for hidden in (hidden1, hidden2))
    if normalize:
        hidden1, hidden2 = (tf.math.l2_normalize(hidden, -1) for hidden in (hidden1, hidden2))
    all1, all2, offset = *_gathered(hidden1, hidden2), _first_row(tf.shape(hidden1)[0])
    labels = tf.range(tf.shape(hidden1)[0]) + offset
    itself = tf.one_hot(labels, tf.shape(all1)[0]) * _SELF_SIMILARITY

    def similarity(some, others):
        return tf.matmul(some, others, transpose_b=True) / temperature

    return (
        labels,
        similarity(hidden1, all1) - itself,
        similarity(hidden1, all2),
        similarity(hidden2, all2) - itself,
        similarity(hidden2, all1),
    )


def _first_row(rows):
    """Index, in the global batch, of this replica's first row."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 0
    return context.replica_id_in_sync_group * rows


def _gathered(*tensors):
    """Concatenates each tensor over replicas; differentiable, unlike an all-gather."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tensors
    replicas = context.num_replicas_in_sync
    mine = tf.one_hot(context.replica_id_in_sync_group, replicas)[:, None, None]
    padded = [mine * tensor[None] for tensor in tensors]
    summed = context.all_reduce(tf.distribute.ReduceOp.SUM, padded)
    return [tf.reshape(tensor, (-1, tensor.shape[-1])) for tensor in summed]


def _cross_entropy(labels, logits):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def log_priors(labels: Sequence[int], classes: int) -> np.ndarray:
    """Logarithm of each class's share, to be added to the logits while training.

    The network then learns logits for equally frequent classes: logit adjustment (Menon et al.
    2021, "Long-tail learning via logit adjustment", with tau = 1).

    Args:
        labels: int[N] in [0, classes), all labelled.
        classes: C.

    Returns:
        float32[C]. A class without an image counts as if it had one: its share stays above zero,
        and the loss still teaches that it is not seen.
    """
    counts = np.maximum(np.bincount(np.asarray(labels), minlength=classes), 1)
    return np.log(counts / counts.sum()).astype(np.float32)


def cross_entropy(labels, logits, *, label_smoothing: float = 0.0):
    """Mean cross-entropy over the labelled examples.

    Args:
        labels: int[N]; -1 marks an unlabelled example, which does not count.
        logits: [N, C].
        label_smoothing: probability mass spread evenly over the classes.

    Returns:
        float32 scalar, the sum divided by the number of labelled examples; 0 without any.
        Inside a replica context of several replicas the number is the mean over them, so that the
        mean of their losses is the loss of the whole batch, wherever its labels lie.
    """
    logits = tf.cast(logits, tf.float32)
    labels = tf.cast(labels, tf.int32)
    labelled = labels >= 0
    safe = tf.where(labelled, labels, 0)
    classes = tf.shape(logits)[-1]
    targets = tf.one_hot(safe, classes) * (1.0 - label_smoothing)
    targets += label_smoothing / tf.cast(classes, tf.float32)
    weights = tf.cast(labelled, tf.float32)
    count = _mean_over_replicas(tf.reduce_sum(weights))
    losses = tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)
    return tf.math.divide_no_nan(tf.reduce_sum(weights * losses), count)


def _mean_over_replicas(number):
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return number
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, number)


class DistillationLoss:
    """Learns from the teacher's softened outputs, and a little from the true labels.

    alpha · CE(labels, s) over labelled examples + (1 - alpha) · T² · CE(softmax(t / T), s / T)
    over all (Hinton, Vinyals & Dean 2015; Chen et al. 2020, SimCLRv2, section 2.3). The factor T²
    keeps the gradient's size as T grows.

    Args:
        temperature: T, above 0.
        alpha: weight of the true labels, in [0, 1].

    Raises:
        ValueError: a parameter is out of its range.
    """

    def __init__(self, temperature: float, alpha: float):
        if temperature <= 0 or not 0 <= alpha <= 1:
            raise ValueError(
                "Distillation needs temperature > 0 and alpha in [0, 1]. "
                f"Received: temperature={temperature}, alpha={alpha}."
            )
        self.temperature = temperature
        self.alpha = alpha

    def __call__(self, labels, student_logits, teacher_logits):
        """Loss of a batch.

        Args:
            labels: int[N]; -1 marks an unlabelled example.
            student_logits: [N, C].
            teacher_logits: [N, C]; no gradient flows into them.

        Returns:
            float32 scalar.
        """
        student = tf.cast(student_logits, tf.float32)
        teacher = tf.stop_gradient(tf.cast(teacher_logits, tf.float32))
        soft = tf.nn.softmax_cross_entropy_with_logits(
            labels=tf.nn.softmax(teacher / self.temperature), logits=student / self.temperature
        )
        imitation = self.temperature**2 * tf.reduce_mean(soft)
        if self.alpha == 0:
            return imitation
        return self.alpha * cross_entropy(labels, student) + (1 - self.alpha) * imitation
