"""Settings of a run in words, by which another run is compared with it."""

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from types import CodeType
from typing import Any

from torch import Tensor, nn

from secateur.files.state_memo import key_of

LAMBDA = "<lambda>"


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
        settings = "".join(_attributes_text(module) for module in value.modules())
        return f"{type(value).__name__}{settings}, {key_of(value.state_dict())}"
    if isinstance(value, partial):
        return f"partial({setting_text([value.func, *value.args, value.keywords])})"
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if inspect.isroutine(value):
        return _function_text(value)
    if is_dataclass(value):
        content = ", ".join(f"{item.name}={setting_text(getattr(value, item.name))}" for item in fields(value))
        return f"{type(value).__name__}({content})"
    has_text = "__repr__" in vars(type(value)) or type(value).__module__ == "builtins"
    return repr(value) if has_text else f"{type(value).__module__}.{type(value).__qualname__}{_attributes_text(value)}"


def _function_text(function: Any) -> str:
    """Return the name of a function, with the values that it was made with, and the code of one without a name."""
    text, code = f"{function.__module__}.{function.__qualname__}", getattr(function, "__code__", None)
    if inspect.ismethod(function) and not isinstance(function.__self__, type | nn.Module):
        return f"{text} of {setting_text(function.__self__)}"
    if code is None:
        return text
    bound = inspect.getclosurevars(function).nonlocals if function.__closure__ else {}
    values = _plain_text({**bound, "defaults": function.__defaults__ or ()})
    return f"{text}{values}{f' {_code_digest(code)}' if code.co_name == LAMBDA else ''}"


def _code_digest(code: CodeType) -> str:
    return key_of(code.co_code.hex(), list(code.co_names), [_constant_text(item) for item in code.co_consts])


def _constant_text(value: object) -> str:
    if isinstance(value, frozenset):  # whose order differs from process to process
        return repr(sorted(map(repr, value)))
    return _code_digest(value) if isinstance(value, CodeType) else repr(value)


def _attributes_text(value: object) -> str:
    """Return the attributes of an object that are numbers or texts."""
    return _plain_text({name: item for name, item in getattr(value, "__dict__", {}).items() if name != "training"})


def _plain_text(values: Mapping[str, Any]) -> str:
    """Return the public values that are numbers, texts, or several of these; empty where there are none."""
    plain_items = {name: item for name, item in values.items() if not name.startswith("_") and _is_number_or_text(item)}
    return f"({', '.join(f'{name}={item!r}' for name, item in plain_items.items())})" if plain_items else ""


def _is_number_or_text(value: object) -> bool:
    if isinstance(value, tuple | list):
        return bool(value) and all(map(_is_number_or_text, value))
    return isinstance(value, int | float | complex | str)
