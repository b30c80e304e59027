"""Settings of a run in words, by which another run is compared with it."""

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from secateur.files.state_memo import key_of


def setting_text(value: Any) -> str:
    """Return a setting in words that are the same in each process.

    Examples:
        >>> import torch
        >>> setting_text({"macs": 0.5}), setting_text(["refit", len]), setting_text(torch.nn.Linear)
        ("{'macs': 0.5}", "['refit', builtins.len]", 'torch.nn.modules.linear.Linear')
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{setting_text(key)}: {setting_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(setting_text(item) for item in value) + "]"
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}, {key_of(value)}"
    if isinstance(value, nn.Module):
        return f"{type(value).__name__}, {key_of(value.state_dict())}"
    if isinstance(value, partial):
        return f"partial({setting_text([value.func, *value.args, value.keywords])})"
    if isinstance(value, type) or inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"
    if is_dataclass(value):
        content = ", ".join(f"{item.name}={setting_text(getattr(value, item.name))}" for item in fields(value))
        return f"{type(value).__name__}({content})"
    has_text = "__repr__" in vars(type(value)) or type(value).__module__ == "builtins"
    return repr(value) if has_text else f"{type(value).__module__}.{type(value).__qualname__}"
