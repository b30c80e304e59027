"""The networks, the images that are pruned with, and the test images that say what is left."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from networks.trained import trained
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from train_demo_network import normalised, read_all, shifted_and_flipped

NETWORKS = ("vgg", "residual", "separable")


@dataclass(frozen=True)
class Subject:
    """A trained network.

    Args:
        name, seed: which.
        images, labels: from its training set, to prune with.
        test_images, test_labels: that it never saw.
    """

    name: str
    seed: int
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def model(self) -> nn.Module:
        return trained(self.name, self.seed).to(memory_format=torch.channels_last)

    def calibration(self, examples: int = 256) -> list[Tensor]:
        return list(self.images[:examples].split(32))

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        model.eval()
        predicted = torch.cat([model(part) for part in self.test_images.split(500)]).argmax(1)
        return float((predicted == self.test_labels).double().mean())


def subjects(folder: Path, names: list[str], seeds: list[int]) -> list[Subject]:
    """Networks with images from the four Fashion-MNIST files in a folder."""
    images, labels, test_images, test_labels = read_all(folder)
    parts = normalised(images[:512]), torch.tensor(labels[:512]).long()
    test = normalised(test_images), torch.tensor(test_labels).long()
    return [Subject(name, seed, *parts, *test) for name in names for seed in seeds]


class Augment:
    """Images shifted by up to two pixels and mirrored half the time, as in the training."""

    def __init__(self, seed: int = 0) -> None:
        self.draws = torch.Generator().manual_seed(seed)

    def __call__(self, images: Tensor) -> Tensor:
        return shifted_and_flipped(images, self.draws).contiguous(memory_format=torch.channels_last)
