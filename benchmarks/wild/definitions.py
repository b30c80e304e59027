"""Network definitions of public libraries, with an example for each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Definition:
    """A network of a public library.

    Args:
        make: returns the network, with random weights unless it is pretrained.
        inputs: returns an example: a tensor, or inputs by name.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[], Any]


SEED = 0


def images(size: int = 64, count: int = 2) -> Callable[[], Tensor]:
    """Return a function that draws images (count, 3, size, size)."""
    return lambda: torch.randn(count, 3, size, size)


def clips(frames: int, size: int) -> Callable[[], Tensor]:
    """Return a function that draws two clips (2, 3, frames, size, size)."""
    return lambda: torch.randn(2, 3, frames, size, size)


def build_definition(definition: Definition) -> tuple[nn.Module, Any]:
    """Return the network of a definition in evaluation mode, and an example, both from fixed seeds."""
    torch.manual_seed(SEED)
    model = definition.make().eval()
    _randomise_constants(model)
    torch.manual_seed(SEED + 1)
    return model, definition.inputs()


def _randomise_constants(model: nn.Module) -> None:
    """Draw tensors of equal entries anew: scales of 1e-6, heads of zeros and new batch norms would hide mistakes."""
    for tensor in (*model.parameters(), *model.buffers()):
        if not tensor.is_floating_point() or tensor.dim() == 0 or tensor.numel() == 0:
            continue
        if bool((tensor == tensor.flatten()[0]).all()):
            noise = torch.rand_like(tensor) * 0.5
            tensor.data.copy_(0.2 * noise if bool((tensor == 0).all()) else 0.75 + noise)


def all_definitions(data: Path | None = None) -> dict[str, Definition]:
    """Return every definition by its name, `library/name`.

    Args:
        data: a folder with trained networks that no package ships; without it these are left out.
    """
    from wild import (
        diffusers_models,
        plain_models,
        pretrained,
        pytorchcv_models,
        timm_models,
        torchvision_models,
        transformers_defaults,
        transformers_models,
        transformers_vision,
        ultralytics_models,
    )

    modules = (
        torchvision_models, timm_models, transformers_models, transformers_vision, transformers_defaults,
        diffusers_models, ultralytics_models, pytorchcv_models, plain_models, pretrained,
    )  # fmt: skip
    definitions = {name: definition for module in modules for name, definition in module.DEFINITIONS.items()}
    return definitions | (pretrained.cifar_resnets(data) if data else {})
