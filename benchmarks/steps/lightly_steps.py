"""lightly's SimCLR step, and fine-tuning as its users do it, on PyTorch; runs in `.bench-env`.

Composed as lightly's own ImageNet benchmark: torchvision's ResNet and transforms, lightly's
projection head of three layers, loss and LARS, both views in one pass, a loader with as many worker
processes as cores and without a pause between epochs. Of the two memory layouts the quicker one is
measured, found in a process of its own. Its online classifier and its schedule are left out, which
is to its advantage; so is the memory of the loader's processes.
"""

import functools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

# A torchvision built for another device than this PyTorch cannot load its compiled operations, and
# then asks for two names at import. Nothing here calls them.
_OPERATIONS = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    _OPERATIONS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import torchvision  # noqa: E402
from lightly.loss import NTXentLoss  # noqa: E402
from lightly.models.modules import SimCLRProjectionHead  # noqa: E402
from lightly.models.utils import get_weight_decay_parameters  # noqa: E402
from lightly.transforms import SimCLRTransform  # noqa: E402
from lightly.utils.lars import LARS  # noqa: E402
from PIL import Image  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset, RandomSampler  # noqa: E402
from torchvision import transforms  # noqa: E402

from benchmarks.steps import timing  # noqa: E402
from benchmarks.steps.timing import CLASSES, MODELS, Case, Model  # noqa: E402

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYOUTS = ("contiguous_format", "channels_last")
ENDLESS = 10**9  # images of an epoch


class Pictures(Dataset):
    """Images in memory, handed to a transform as Pillow images."""

    def __init__(self, model: Model, transform: Callable):
        self.images, self.labels = timing.pictures(model), timing.labels(model)
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def batches(case: Case) -> Iterator[Any]:
    """A list of views (or one view), each `float32[batch, 3, S, S]`, and `int64[batch]` labels."""
    model = MODELS[case.model]
    if case.what == "finetune":
        transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(model.size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, DEVIATION),
            ]
        )
    else:
        transform = SimCLRTransform(input_size=model.size)
    pictures = Pictures(model, transform)
    loader = DataLoader(
        pictures,
        batch_size=model.batch,
        sampler=RandomSampler(pictures, replacement=True, num_samples=ENDLESS),
        num_workers=timing.cores(),
    )
    yield from loader


def training_step(case: Case, name: str) -> Callable[[Any, Any], float]:
    """The update by a layout of `LAYOUTS`: one view or a list of views, and labels."""
    layout = getattr(torch, name)
    network = getattr(torchvision.models, f"resnet{MODELS[case.model].depth}")()
    features = network.fc.in_features
    network.fc = nn.Identity()
    network = network.to(memory_format=layout)
    contrastive = case.what == "pretrain"
    if contrastive:
        head = SimCLRProjectionHead(features, features, 128, num_layers=3)
        criterion = NTXentLoss(temperature=0.1)
    else:
        head = nn.Linear(features, CLASSES)
        criterion = nn.CrossEntropyLoss()
    decayed, undecayed = get_weight_decay_parameters([network, head])
    optimizer = LARS(
        [{"params": decayed}, {"params": undecayed, "weight_decay": 0.0}],
        lr=0.3,
        momentum=0.9,
        weight_decay=1e-4,
    )

    def step(views, truth):
        images = torch.cat(list(views)) if contrastive else views
        images = images.contiguous(memory_format=layout)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bfloat16"):
            outputs = head(network(images))
        outputs = outputs.float()
        loss = criterion(*outputs.chunk(2)) if contrastive else criterion(outputs, truth)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def quicker_layout(case: Case) -> str:
    """The memory layout in which the second of two steps takes less time.

    Leaves its networks in the process, whose peak of memory therefore tells nothing of a training.
    """
    torch.set_num_threads(timing.cores())
    ready = next(batches(case))
    seconds = {}
    for layout in LAYOUTS:
        step = training_step(case, layout)
        step(*ready)
        start = time.perf_counter()
        step(*ready)
        seconds[layout] = time.perf_counter() - start
    return min(seconds, key=seconds.get)


def measure(case: Case) -> dict[str, Any]:
    torch.manual_seed(0)
    torch.set_num_threads(timing.cores())
    clock = functools.partial(timing.clock, quick=case.quick, ahead=timing.AHEAD)
    if case.what == "views":
        source = batches(case)
        return {"whole": clock(lambda: next(source))}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as apart:
        layout = apart.submit(quicker_layout, case).result()
    source = batches(case)
    ready = next(source)
    start = time.perf_counter()
    step = training_step(case, layout)
    step(*ready)
    first = time.perf_counter() - start
    whole = clock(lambda: step(*next(source)))
    memory = timing.peak_memory()
    source.close()
    update = timing.clock(lambda: step(*ready), quick=case.quick)
    return {
        "whole": whole,
        "update": update,
        "first": first,
        "memory": memory,
        "layout": layout,
    }


if __name__ == "__main__":
    timing.answer(measure)
