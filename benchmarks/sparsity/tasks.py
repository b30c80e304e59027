"""Networks to prune in blocks: LeNet-300-100, which trains in seconds, and the benchmarks' residual network."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from networks.trained import trained as pretrained
from papers.datasets import Split
from papers.subjects import training_batches
from torch import Tensor, nn
from torch.nn import functional as F

from secateur import demo

Optimizer = torch.optim.Optimizer
BATCH = 128


class LeNet300(nn.Module):
    """LeNet-300-100 (LeCun et al. 1998): three linear layers of 300, 100 and 10 outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(F.relu(self.second(F.relu(self.first(x.flatten(1))))))
        return scores


@dataclass(frozen=True)
class TrainingTask:
    """A network with its data and its training.

    Args:
        name: the name of the network.
        split: the data.
        layers: the layers whose weights are pruned.
        fresh: returns the untrained network.
        dense: returns the trained network, from a seed and a number of epochs where it is trained here.
        train: trains a network in place, for a number of epochs.
    """

    name: str
    split: Split
    layers: tuple[str, ...]
    fresh: Callable[[], nn.Module]
    dense: Callable[[int, int], nn.Module]
    train: Callable[..., None]

    @property
    def weights(self) -> tuple[str, ...]:
        """The names of the weights that are pruned."""
        return tuple(f"{layer}.weight" for layer in self.layers)

    @property
    def whole_layers(self) -> tuple[str, ...]:
        """The layers whose weights are not pruned."""
        named = self.fresh().named_modules()
        return tuple(
            path for path, module in named if isinstance(module, nn.Linear | nn.Conv2d) and path not in self.layers
        )

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        """Return the accuracy of a network on the test images."""
        model.eval()
        predicted = torch.cat([model(batch) for batch in self.split.test_images.split(1000)]).argmax(1)
        return float((predicted == self.split.test_labels).double().mean())


def lenet(split: Split, layers: tuple[str, ...] = ("first", "second")) -> TrainingTask:
    """Return the task of LeNet-300-100; its first and second layer hold 99.6 % of the weights."""

    def dense(seed: int, epochs: int) -> nn.Module:
        torch.manual_seed(seed)
        model = LeNet300()
        _train_plainly(split, model, epochs, seed)
        return model

    return TrainingTask("lenet", split, layers, LeNet300, dense, partial(_train_plainly, split))


def residual(split: Split) -> TrainingTask:
    """Return the task of the residual network of the demo, whose 3 x 3 convolutions in blocks are pruned."""
    blocks = (f"layer{stage}.{block}.conv{number}" for stage in (1, 2) for block in (0, 1) for number in (1, 2))
    return TrainingTask(
        "residual", split, tuple(blocks), demo.FashionNet, lambda seed, _: pretrained("residual", seed),
        partial(_train_on_shifted, split),
    )  # fmt: skip


def _train_plainly(
    split: Split, model: nn.Module, epochs: int, seed: int, rate: float = 1e-3, optimizer: Optimizer | None = None
) -> None:
    """Train with Adam by default, with a rate that falls linearly to zero."""
    draws = torch.Generator().manual_seed(seed)
    count = len(split.labels) // BATCH
    step = _steps(model, epochs * count, rate, optimizer)
    for _ in range(epochs):
        for chosen in torch.randperm(len(split.labels), generator=draws)[: count * BATCH].view(-1, BATCH):
            step(split.images[chosen], split.labels[chosen])
    model.eval()


def _train_on_shifted(
    split: Split, model: nn.Module, epochs: int, seed: int, rate: float = 1e-3, optimizer: Optimizer | None = None
) -> None:
    """Train in the same way on images that are shifted and mirrored."""
    steps = epochs * (len(split.labels) // BATCH)
    step = _steps(model.to(memory_format=torch.channels_last), steps, rate, optimizer)
    for images, labels in training_batches(split, steps, BATCH, torch.Generator().manual_seed(seed)):
        step(images, labels)
    model.eval()


def _steps(model: nn.Module, total: int, rate: float, optimizer: Optimizer | None) -> Callable[[Tensor, Tensor], None]:
    used_optimizer = optimizer or torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(used_optimizer, lambda step: max(1 - step / total, 0.0))
    model.train()

    def step(images: Tensor, labels: Tensor) -> None:
        used_optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        used_optimizer.step()
        schedule.step()

    return step
