"""CIFAR-10 and the residual networks of He et al. (2016) for it."""

from pathlib import Path

import numpy as np
import torch
from networks.cifar_resnet import CifarResNet, load_cifar_resnet
from networks.pixels import normalise_pixels
from torch import nn

from published.subject import PublishedSubject

TEST_STEP = 5  # of the 10,000 test images, which are sorted by class, every fifth is taken


def cifar_subject(folder: Path, depth: int) -> PublishedSubject:
    """Return ResNet-20 or -56 with the images of `cifar10.npz`."""
    with np.load(folder / "cifar10.npz") as arrays:
        images = normalise_pixels(arrays["xtrain"]).contiguous()
        test_images = normalise_pixels(arrays["xtest"][::TEST_STEP]).contiguous()
        labels = torch.tensor(arrays["ytest"][::TEST_STEP])
    name = f"cifar10_resnet{depth}"
    return PublishedSubject(
        f"ResNet-{depth}", images, test_images, labels.long(), load_cifar_resnet(folder / f"{name}.safetensors")
    )


def blocks_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the residual blocks of a CIFAR ResNet, by name, in the order in which they run."""
    assert isinstance(model, CifarResNet)
    return {
        f"layer{stage}.{number}": block
        for stage in (1, 2, 3)
        for number, block in enumerate(getattr(model, f"layer{stage}"))
    }
