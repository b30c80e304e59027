"""LeNet-300-100 on Fashion-MNIST: a network that trains in seconds."""

import torch
from papers.datasets import Split
from torch import Tensor, nn
from torch.nn import functional as F


class LeNet300(nn.Module):
    """784 - 300 - 100 - 10 (LeCun et al. 1998)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(F.relu(self.second(F.relu(self.first(x.flatten(1))))))
        return scores


def train(
    model: nn.Module, split: Split, epochs: int, seed: int, rate: float = 1e-3,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:  # fmt: skip
    """Adam on batches of 128, a rate that falls to nothing."""
    draws = torch.Generator().manual_seed(seed)
    moved = optimizer or torch.optim.Adam(model.parameters(), rate)
    total = epochs * (len(split.labels) // 128)
    schedule = torch.optim.lr_scheduler.LambdaLR(moved, lambda step: max(1 - step / total, 0.0))
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(split.labels), generator=draws)[: len(split.labels) // 128 * 128].view(
            -1, 128
        ):
            moved.zero_grad()
            F.cross_entropy(model(split.images[chosen]), split.labels[chosen]).backward()
            moved.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    found = torch.cat([model(part) for part in split.test_images.split(1000)]).argmax(1)
    return float((found == split.test_labels).double().mean())


def trained(split: Split, seed: int, epochs: int = 10) -> LeNet300:
    torch.manual_seed(seed)
    model = LeNet300()
    train(model, split, epochs, seed)
    return model
