"""The networks of the benchmarks by name, and their trained weights."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from networks.separable import Separable
from networks.vgg import Vgg
from secateur import demo

NETWORKS: dict[str, type[nn.Module]] = {"vgg": Vgg, "residual": demo.FashionNet, "separable": Separable}
SEEDS = (0, 1, 2)
FOLDER = Path(__file__).with_name("weights")


def trained(name: str, seed: int = 0) -> nn.Module:
    """A trained network, in evaluation mode; the residual one of seed 0 is the demo's."""
    if (name, seed) == ("residual", 0):
        return demo.network()
    model = NETWORKS[name]()
    weights = load_file(FOLDER / f"{name}-{seed}.safetensors")
    model.load_state_dict(
        {key: value.float() if value.dtype == torch.half else value for key, value in weights.items()}
    )
    return model.eval()
