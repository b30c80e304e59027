"""CIFAR-10 and the residual networks of He et al. (2016) for it."""

from pathlib import Path

import numpy as np
import torch
from networks.cifar_resnet import CifarResNet, load_cifar_resnet
from torch import Tensor, nn

from published.subject import Subject

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
TEST_STEP = 5  # of the 10,000 test images, which are sorted by class, every fifth is taken


def cifar_subject(folder: Path, depth: int) -> Subject:
    """Return ResNet-20 or -56 with the images of `cifar10.npz`."""
    with np.load(folder / "cifar10.npz") as arrays:
        images = _normalised(arrays["xtrain"])
        test_images, labels = _normalised(arrays["xtest"][::TEST_STEP]), torch.tensor(arrays["ytest"][::TEST_STEP])
    name = f"cifar10_resnet{depth}"
    return Subject(
        f"ResNet-{depth}", images, test_images, labels.long(), load_cifar_resnet(folder / f"{name}.safetensors")
    )


def _normalised(pixels: np.ndarray) -> Tensor:
    """Return images (images, 3, 32, 32) of bytes (images, 32, 32, 3)."""
    return ((torch.tensor(pixels) / 255 - MEAN) / STD).permute(0, 3, 1, 2).contiguous()


def blocks_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the residual blocks of a CIFAR ResNet, by name, in the order in which they run."""
    assert isinstance(model, CifarResNet)
    return {
        f"layer{stage}.{number}": block
        for stage in (1, 2, 3)
        for number, block in enumerate(getattr(model, f"layer{stage}"))
    }
