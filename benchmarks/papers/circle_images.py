"""Images of circles and squares, and their labels."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sizes:
    """The sizes of the experiment.

    Args:
        side: the side of the images, in pixels.
        shape: the side of the objects, in pixels.
        objects: the number of objects in an image.
        images: the number of training images.
        tests: the number of test images.
        epochs: the epochs of the dense network's training.
        rounds: the rounds of pruning.
        depth: the depth of the network.
        noise: the standard deviation of the noise.
    """

    side: int
    shape: int
    objects: int
    images: int
    tests: int
    epochs: int
    rounds: int
    depth: int
    noise: float


def draw_circles(count: int, sizes: Sizes, seed: int) -> tuple[Tensor, Tensor]:
    """Draw images of squares, hollow squares, discs and rings that do not overlap, with noise, and their labels."""
    draws = torch.Generator().manual_seed(seed)
    images, labels = torch.zeros(count, 1, sizes.side, sizes.side), torch.zeros(count, sizes.side, sizes.side).long()
    masks, shape = _masks(sizes.shape), sizes.shape
    for image, label in zip(images[:, 0], labels, strict=True):
        positions: list[tuple[int, int]] = []
        while len(positions) < sizes.objects:
            y, x = torch.randint(0, sizes.side - shape + 1, (2,), generator=draws).tolist()
            if any(abs(y - a) < shape and abs(x - b) < shape for a, b in positions):
                if positions and torch.rand((), generator=draws) < 0.002:
                    positions = []  # no room is left: start again
                    image.zero_()
                    label.zero_()
                continue
            positions.append((y, x))
            kind = int(torch.randint(0, 4, (1,), generator=draws))
            strength = 0.2 + 0.8 * torch.rand((), generator=draws)
            window = (slice(y, y + shape), slice(x, x + shape))
            image[window][masks[kind]] = strength
            label[window][masks[kind]] = kind + 1
    return images + sizes.noise * torch.randn(images.shape, generator=draws), labels


def _masks(shape: int) -> list[Tensor]:
    axis = torch.arange(shape) - (shape - 1) / 2
    radius = (axis[:, None].square() + axis.square()).sqrt()
    far = torch.maximum(axis[:, None].abs(), axis.abs())
    half = shape / 2
    return [far <= half, (far <= half) & (far > half / 2), radius <= half, (radius <= half) & (radius > half / 2)]
