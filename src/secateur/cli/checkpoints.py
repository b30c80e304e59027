"""Weights in the forms that training scripts write them: nested, and with the prefixes of wrappers."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

NESTED = ("state_dict", "model_state_dict", "model", "module", "net", "network", "state_dict_ema", "model_ema", "ema")
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module"}
COUNTERS = {"n_averaged"}  # of torch.optim.swa_utils.AveragedModel


def read_checkpoint(path: Path) -> Any:
    """What a file holds: tensors by name, or whatever a training script wrote beside them.

    Nothing in it is run: a `.pt` file may hold tensors, numbers, text and parsed arguments.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, "cpu", weights_only=True)


def state_dict_for(model: nn.Module, checkpoint: Any) -> Mapping[str, Any]:
    """The part of a checkpoint that fits a model best, under the model's own names.

    Args:
        model: the plain model.
        checkpoint: a state dict, or a dict that holds one under `state_dict`, `model`, `ema` and the like; names may
            have prefixes of wrappers (`module.`, `_orig_mod.`), or one in common. Of several that fit alike the first
            counts, in the order of `NESTED`.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(1, 1, bias=False)
        >>> list(state_dict_for(layer, {"state_dict": {"module.weight": torch.ones(1, 1)}, "epoch": 3}))
        ['weight']
    """
    own = set(model.state_dict())
    named = [_renamed(state, own) for state in _state_dicts(checkpoint)]
    return max(named, key=lambda state: len(own & state.keys()) - len(state.keys() - own), default={})


def _state_dicts(content: Any) -> Iterator[Mapping[str, Any]]:
    """The content itself if it holds tensors by name, and those within it."""
    if not isinstance(content, Mapping):
        return
    if any(isinstance(value, Tensor) for value in content.values()):
        yield content
    for name in NESTED:
        yield from _state_dicts(content.get(name))


def _renamed(state: Mapping[str, Any], own: set[str]) -> dict[str, Any]:
    """A state dict without the names of wrappers and without a prefix in common, where the model lacks them."""
    plain = {name if name in own else _without_wrappers(name): value for name, value in state.items()}
    prefix = _common_prefix(set(plain), own)
    return {name.removeprefix(prefix): value for name, value in plain.items() if name in own or name not in COUNTERS}


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _common_prefix(names: set[str], own: set[str]) -> str:
    """What all of the model's names have before them in a state dict, such as the attribute of a training module."""
    first = min(own, default="")
    prefixes = [name.removesuffix(first) for name in names if name.endswith(f".{first}")]
    return next((prefix for prefix in sorted(prefixes, key=len) if {prefix + name for name in own} <= names), "")
