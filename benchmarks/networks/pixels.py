"""Pixels as networks of ImageNet and the CIFAR ResNets of the benchmarks expect them."""

import numpy as np
import torch
from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def normalise_pixels(pixels: np.ndarray) -> Tensor:
    """Normalise images by the means and standard deviations of ImageNet.

    Args:
        pixels: bytes, (images, height, width, 3).

    Returns:
        (images, 3, height, width), in the order of `torch.channels_last`.
    """
    return ((torch.from_numpy(pixels).float() / 255 - IMAGENET_MEAN) / IMAGENET_STD).permute(0, 3, 1, 2)
