"""Training and test images in memory, with scaled pixels."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Images and labels to train and prune with, and others to test on; all in memory."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def scale_pixels(images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return images (images, channels, height, width) of bytes with the means and deviations of channels removed."""
    shape = (1, -1, 1, 1)
    pixels = torch.tensor(images).float() / 255
    return ((pixels - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)).contiguous(
        memory_format=torch.channels_last
    )
