"""Read checkpoints of training scripts: nested state dicts, and names with the prefixes of wrappers."""

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
    """Read a file of tensors by name, and of the values that a training script wrote beside them.

    No code of the file is run: a `.pt` file may hold tensors, numbers, text and parsed arguments.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, "cpu", weights_only=True)


def state_dict_for(model: nn.Module, checkpoint: Any) -> Mapping[str, Any]:
    """Return the state dict of a checkpoint that fits a model best, under the names of the model.

    Args:
        model: the plain model.
        checkpoint: a state dict, or a dict that holds one under `state_dict`, `model`, `ema` and the like; names may
            have prefixes of wrappers (`module.`, `_orig_mod.`), or one common prefix. Of several that fit equally well
            the first is returned, in the order of `NESTED`.

    Examples:
        >>> import torch
        >>> layer = torch.nn.Linear(1, 1, bias=False)
        >>> list(state_dict_for(layer, {"state_dict": {"module.weight": torch.ones(1, 1)}, "epoch": 3}))
        ['weight']
    """
    names = set(model.state_dict())
    candidates = [_without_prefixes(state, names) for state in _state_dicts(checkpoint)]
    return max(candidates, key=lambda state: len(names & state.keys()) - len(state.keys() - names), default={})


def _state_dicts(content: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the content itself if it holds tensors by name, and the state dicts nested in it."""
    if not isinstance(content, Mapping):
        return
    if any(isinstance(value, Tensor) for value in content.values()):
        yield content
    for name in NESTED:
        yield from _state_dicts(content.get(name))


def _without_prefixes(state: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """Remove the names of wrappers and the common prefix from a state dict, where the model has no such names."""
    plain_names = {name if name in names else _without_wrappers(name): value for name, value in state.items()}
    prefix = _common_prefix(set(plain_names), names)
    return {
        name.removeprefix(prefix): value for name, value in plain_names.items() if name in names or name not in COUNTERS
    }


def _without_wrappers(name: str) -> str:
    return ".".join(attribute for attribute in name.split(".") if attribute not in WRAPPERS)


def _common_prefix(names: set[str], model_names: set[str]) -> str:
    """Return the prefix of all of the model's names in a state dict, such as an attribute of a training module."""
    first_name = min(model_names, default="")
    prefixes = [name.removesuffix(first_name) for name in names if name.endswith(f".{first_name}")]
    return next(
        (prefix for prefix in sorted(prefixes, key=len) if {prefix + name for name in model_names} <= names), ""
    )
