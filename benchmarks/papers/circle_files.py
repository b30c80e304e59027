"""The circle-square data and networks of LEAN's authors, read from the file that `published_circles` packs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from papers.msd_network import MixedScaleDense

DEPTH, STEPS, TARGET = 50, 15, 0.05
METHODS = {"lean": "LEAN", "l1": "indivL1", "norm": "indivSV"}
LOWEST, HIGHEST = -6.0, 6.75  # the range of noisy pixels; 8 bits are steps of .05
SPLITS = {"train": 500, "val": 100, "test": 50}


@dataclass(frozen=True)
class PublishedNetwork:
    """A network of the authors.

    Args:
        parameters: the parameters by the names of `MixedScaleDense`; pruned kernels are zero.
        moments: Adam's first and second moments, and the number of its steps.
        masks: True for the kernels that are kept, one row of all layers' inputs, (kernels,).
        accuracy: the accuracy on the test images from the name of its file, or 0.
    """

    parameters: dict[str, Tensor]
    moments: tuple[dict[str, Tensor], dict[str, Tensor], int]
    masks: Tensor
    accuracy: float

    def model(self) -> MixedScaleDense:
        """Return the network, which expects images that are scaled as `Circles.images`."""
        model = MixedScaleDense(DEPTH, mirrored=True)
        model.load_state_dict(self.parameters)
        return model.eval()


@dataclass(frozen=True)
class Circles:
    """The images, scaled for the networks, with their labels.

    Args:
        images: the images of each split, (images, 1, 256, 256).
        labels: the labels of each split, (images, 256, 256).
    """

    images: dict[str, Tensor]
    labels: dict[str, Tensor]


def load_circles(file: Path, count: int | None = None) -> Circles:
    """Read the images of a file that `pack` wrote.

    Args:
        file: the file.
        count: the number of images of each split; all by default.
    """
    with np.load(file) as saved:
        scale, shift = (float(saved[name]) for name in ("scale", "shift"))
        step = (HIGHEST - LOWEST) / 255
        images = {
            split: torch.from_numpy(saved[f"{split}.noisy"][:count]).float().mul_(step).add_(LOWEST)[:, None]
            for split in SPLITS
        }
        labels = {split: torch.from_numpy(saved[f"{split}.label"][:count]).long() for split in SPLITS}
    return Circles({split: x.mul_(scale).add_(shift) for split, x in images.items()}, labels)


def load_network(file: Path, by: str | None = None, step: int = 0) -> PublishedNetwork:
    """Read the trained network, or the network of a method after a step of pruning and fine-tuning.

    Args:
        file: a file that `pack` wrote.
        by: "lean", "l1" or "norm"; None for the trained network.
        step: the number of the step, from 1 to 15.
    """
    key = "dense" if by is None else f"{by}.{step}"
    with np.load(file) as saved:
        vectors = [torch.from_numpy(saved[f"{key}.{name}"]) for name in ("parameters", "first", "second")]
        masks = torch.from_numpy(np.unpackbits(saved[f"{key}.masks"], count=kernels_in(DEPTH)).astype(bool))
        steps, accuracy = int(saved[f"{key}.steps"]), float(saved[f"{key}.accuracy"])
    parameters, first, second = (split_vector(vector) for vector in vectors)
    rows = masks.split([depth + 1 for depth in range(DEPTH)])
    for number, row in enumerate(rows):
        parameters[f"layers.{number}.weight"] *= row[None, :, None, None]
    return PublishedNetwork(parameters, (first, second, steps), masks, accuracy)


def kernels_in(depth: int) -> int:
    """Return the number of 3 x 3 kernels; layer i reads the image and i maps."""
    return depth * (depth + 1) // 2


def split_vector(vector: Tensor) -> dict[str, Tensor]:
    """Split a vector of all parameters by their names."""
    shapes = {name: value.shape for name, value in MixedScaleDense(DEPTH).state_dict().items()}
    values = vector.split([shape.numel() for shape in shapes.values()])
    return {name: tensor.reshape(shape).clone() for (name, shape), tensor in zip(shapes.items(), values, strict=True)}
