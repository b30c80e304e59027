"""Networks with batch norms between their layers."""

import torch
from torch import Tensor, nn

from secateur import demo
from zoo import grow


def batch_normed() -> tuple[nn.Module, Tensor]:
    """A convolution and a linear layer with biases of their own, each before a batch norm; and one without either."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(), nn.Flatten(),
        nn.Linear(8 * 16, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 5, bias=False), nn.ReLU(), nn.Linear(5, 3),
    )  # fmt: skip
    for module in model:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 2)
    return model.eval(), torch.randn(64, 3, 4, 4)


def folding_network(name: str) -> tuple[nn.Module, Tensor]:
    if name == "batch norms":
        return batch_normed()
    if name == "demo":
        return demo.network(), torch.cat(demo.calibration())[:32]
    model, x = grow(name)
    return model, x
