"""The order in which an epoch visits its images, and which stand for all of them."""

import numpy as np

from trainer.examples import Examples


def batch_of(examples: int, wanted: int) -> int:
    """The batch size used: the wanted one, or all images where there are fewer."""
    return min(examples, wanted)


def shuffled(examples: int, batch: int, random: np.random.Generator) -> np.ndarray:
    """Every image once, in equal batches; the last one is filled up from the start of the order.

    Args:
        examples: how many images there are, at least 1.
        batch: images per step, at most `examples`.
        random: source of the order.

    Returns:
        `int32[ceil(examples / batch), batch]`.
    """
    steps = -(-examples // batch)
    return np.resize(random.permutation(examples), (steps, batch)).astype(np.int32)


def shuffled_whole(examples: int, batch: int, random: np.random.Generator) -> np.ndarray:
    """As `shuffled`, leaving the rest that fills no batch for another epoch.

    A contrastive batch must not hold an image twice: it would be its own negative.

    Returns:
        `int32[examples // batch, batch]`.
    """
    steps = examples // batch
    return random.permutation(examples)[: steps * batch].reshape(steps, batch).astype(np.int32)


def balanced(labels: np.ndarray, batch: int, random: np.random.Generator) -> np.ndarray:
    """As many images of each class, the rarer ones repeated; as many steps as `shuffled` takes.

    Repeating with fresh augmentation is steadier than weighting the loss, which would let a single
    image of a rare class outvote a batch.

    Args:
        labels: `int32[N]`, all labelled; classes without an image are left out.
        batch: images per step.
        random: source of the order.

    Returns:
        `int32[ceil(N / batch), batch]`.
    """
    present = np.unique(labels)
    steps = -(-len(labels) // batch)
    share = -(-steps * batch // len(present))
    columns = [
        np.concatenate([random.permutation(members) for _ in range(-(-share // len(members)))])[
            :share
        ]
        for members in (np.flatnonzero(labels == label) for label in present)
    ]
    # Row by row each class appears once, so that every batch is balanced, not only the epoch.
    order = random.permuted(np.stack(columns, axis=1), axis=1).reshape(-1)
    return order[: steps * batch].reshape(steps, batch).astype(np.int32)


def spread(examples: Examples, count: int, random: np.random.Generator | None = None) -> np.ndarray:
    """Picks examples of as many people as there are: one slice of each, then a second, and so on.

    Args:
        examples: one or more.
        count: how many at most.
        random: draws which people come first; without it, the first by their ids.

    Returns:
        `int[min(count, N)]` positions; the middle slice of a person comes first.
    """
    if examples.subjects is None:
        return np.linspace(0, len(examples) - 1, min(count, len(examples))).round().astype(int)
    _, person, slices = np.unique(
        examples.subjects.astype(str), return_inverse=True, return_counts=True
    )
    within = np.arange(len(person)) - np.repeat(np.cumsum(slices) - slices, slices)
    place, turn = np.empty_like(person), np.empty_like(person)
    place[np.argsort(person, kind="stable")] = within
    turn[np.lexsort((place, np.abs(place - slices[person] // 2), person))] = within
    if random is not None:
        person = random.permutation(len(slices))[person]
    return np.lexsort((person, turn))[:count]
