"""The networks of the benchmark, the images to prune with, and the images to test on."""

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
class FashionSubject:
    """A network trained on Fashion-MNIST, with its images.

    Args:
        name: the kind of the network.
        seed: the seed of its training.
        images: images of its training set, to prune with.
        labels: their labels.
        test_images: images that it was not trained on.
        test_labels: their labels.
    """

    name: str
    seed: int
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def model(self) -> nn.Module:
        """Return the trained network."""
        return trained(self.name, self.seed).to(memory_format=torch.channels_last)

    def calibration(self, examples: int = 256) -> list[Tensor]:
        """Return the first images in batches of 32."""
        return list(self.images[:examples].split(32))

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        """Return the accuracy of a network on the test images."""
        model.eval()
        predicted = torch.cat([model(batch) for batch in self.test_images.split(500)]).argmax(1)
        return float((predicted == self.test_labels).double().mean())


def fashion_subjects(folder: Path, names: list[str], seeds: list[int]) -> list[FashionSubject]:
    """Return networks with the images of the four Fashion-MNIST files of a folder."""
    images, labels, test_images, test_labels = read_all(folder)
    calibration = normalised(images[:512]), torch.tensor(labels[:512]).long()
    test = normalised(test_images), torch.tensor(test_labels).long()
    return [FashionSubject(name, seed, *calibration, *test) for name in names for seed in seeds]


class Augment:
    """Shift images by up to two pixels and mirror half of them, as in the training."""

    def __init__(self, seed: int = 0) -> None:
        self.draws = torch.Generator().manual_seed(seed)

    def __call__(self, images: Tensor) -> Tensor:
        """Return changed images."""
        return shifted_and_flipped(images, self.draws).contiguous(memory_format=torch.channels_last)
