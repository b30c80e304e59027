"""A small trained network and images that ship with Secateur."""

from importlib.resources import as_file, files

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from secateur.demo.network import FashionNet
from secateur.options.call_checks import checked_calls

MEAN, STD = 0.2860, 0.3530

__all__ = ["FashionNet", "calibration", "network", "test"]


@checked_calls
def network() -> FashionNet:
    """Return the trained network, in evaluation mode.

    Examples:
        >>> sum(parameter.numel() for parameter in network().parameters())
        168274
    """
    model = FashionNet()
    with as_file(files(__name__) / "fashion.safetensors") as path:
        model.load_state_dict(load_file(path))
    return model.eval()


@checked_calls
def calibration() -> list[Tensor]:
    """Return 256 images of the network's training set, without labels, in batches of 32."""
    return list(_images("calibration")[0].split(32))


@checked_calls
def test() -> list[tuple[Tensor, Tensor]]:
    """Return 2,000 images of the test set, with labels, in batches of 32."""
    images, labels = _images("test")
    return list(zip(images.split(32), labels.split(32), strict=True))


def _images(split: str) -> tuple[Tensor, Tensor]:
    with as_file(files(__name__) / "fashion.npz") as path, np.load(path) as arrays:
        images = torch.from_numpy(arrays[f"{split}_images"]).unsqueeze(1)
        labels = torch.from_numpy(arrays[f"{split}_labels"]).long()
    return (images / 255 - MEAN) / STD, labels
