"""One definition of the wild: how it is made, and an example for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Definition:
    """A network of a public library.

    Args:
        make: builds it; random weights but for the pretrained ones.
        inputs: an example: a tensor, or inputs by name.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[], Any]


Definitions = Mapping[str, Definition]


def images(size: int = 64, count: int = 2) -> Callable[[], Tensor]:
    return lambda: torch.randn(count, 3, size, size)


def clips(frames: int, size: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(2, 3, frames, size, size)


def all_definitions(data: Path | None = None) -> dict[str, Definition]:
    """Every definition by name, `library/name`.

    Args:
        data: a folder with trained networks that no package ships; without it these are left out.
    """
    from wild import (
        diffusers_models,
        plain_models,
        pretrained,
        timm_models,
        torchvision_models,
        transformers_defaults,
        transformers_models,
        ultralytics_models,
    )

    return {
        **torchvision_models.DEFINITIONS,
        **timm_models.DEFINITIONS,
        **transformers_models.DEFINITIONS,
        **transformers_defaults.DEFINITIONS,
        **diffusers_models.DEFINITIONS,
        **ultralytics_models.DEFINITIONS,
        **plain_models.DEFINITIONS,
        **pretrained.DEFINITIONS,
        **(pretrained.cifar_resnets(data) if data else {}),
    }
