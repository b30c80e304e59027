"""What blocks are tried on: LeNet-300-100, which trains in seconds, and the benchmarks' residual network."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from networks.trained import trained as pretrained
from papers.datasets import Split
from papers.subjects import batches
from torch import Tensor, nn
from torch.nn import functional as F

from secateur import demo

Optimizer = torch.optim.Optimizer
BATCH = 128


class LeNet300(nn.Module):
    """784 - 300 - 100 - 10 (LeCun et al. 1998)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(F.relu(self.second(F.relu(self.first(x.flatten(1))))))
        return scores


@dataclass(frozen=True)
class Task:
    """A network, how it comes to be, and how it is trained on.

    Args:
        name: of the network.
        split: the data.
        layers: whose weights are pruned.
        fresh: makes the network, untrained.
        dense: from a seed and a number of epochs, where it is trained here, the trained network.
        train: so many epochs, in place.
    """

    name: str
    split: Split
    layers: tuple[str, ...]
    fresh: Callable[[], nn.Module]
    dense: Callable[[int, int], nn.Module]
    train: Callable[..., None]

    @property
    def weights(self) -> tuple[str, ...]:
        return tuple(f"{layer}.weight" for layer in self.layers)

    @property
    def rest(self) -> tuple[str, ...]:
        """The layers that stay whole."""
        named = self.fresh().named_modules()
        return tuple(
            path for path, each in named if isinstance(each, nn.Linear | nn.Conv2d) and path not in self.layers
        )

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        model.eval()
        found = torch.cat([model(part) for part in self.split.test_images.split(1000)]).argmax(1)
        return float((found == self.split.test_labels).double().mean())


def lenet(split: Split, layers: tuple[str, ...] = ("first", "second")) -> Task:
    """LeNet-300-100; its first and second layer hold 99.6 % of the weights."""

    def dense(seed: int, epochs: int) -> nn.Module:
        torch.manual_seed(seed)
        model = LeNet300()
        _train_plainly(split, model, epochs, seed)
        return model

    return Task("lenet", split, layers, LeNet300, dense, partial(_train_plainly, split))


def residual(split: Split) -> Task:
    """The residual network that ships with Secateur, and its siblings: the 3 x 3 convolutions of its blocks."""
    blocks = (f"layer{stage}.{block}.conv{number}" for stage in (1, 2) for block in (0, 1) for number in (1, 2))
    return Task(
        "residual", split, tuple(blocks), demo.FashionNet, lambda seed, _: pretrained("residual", seed),
        partial(_train_on_shifted, split),
    )  # fmt: skip


def _train_plainly(
    split: Split, model: nn.Module, epochs: int, seed: int, rate: float = 1e-3, optimizer: Optimizer | None = None
) -> None:
    """Adam, a rate that falls to nothing."""
    draws = torch.Generator().manual_seed(seed)
    many = len(split.labels) // BATCH
    step = _steps(model, epochs * many, rate, optimizer)
    for _ in range(epochs):
        for chosen in torch.randperm(len(split.labels), generator=draws)[: many * BATCH].view(-1, BATCH):
            step(split.images[chosen], split.labels[chosen])
    model.eval()


def _train_on_shifted(
    split: Split, model: nn.Module, epochs: int, seed: int, rate: float = 1e-3, optimizer: Optimizer | None = None
) -> None:
    """The same on images that are shifted and mirrored."""
    steps = epochs * (len(split.labels) // BATCH)
    step = _steps(model.to(memory_format=torch.channels_last), steps, rate, optimizer)
    for images, labels in batches(split, steps, BATCH, torch.Generator().manual_seed(seed)):
        step(images, labels)
    model.eval()


def _steps(model: nn.Module, total: int, rate: float, optimizer: Optimizer | None) -> Callable[[Tensor, Tensor], None]:
    moved = optimizer or torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(moved, lambda step: max(1 - step / total, 0.0))
    model.train()

    def step(images: Tensor, labels: Tensor) -> None:
        moved.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        moved.step()
        schedule.step()

    return step


TASKS: dict[str, Callable[[Split], Task]] = {"lenet": lenet, "residual": residual}
