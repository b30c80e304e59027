"""Deep copies of models, those included that hold objects which can't be copied."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from secateur.errors import SurgeryError

REGISTRIES = ("_parameters", "_buffers", "_modules")


def copied(model: nn.Module, memo: Mapping[int, Any]) -> nn.Module:
    """A deep copy; `memo` gives what stands for which object, by identity.

    A plain attribute that can't be copied (a lock, a file, a configuration that refuses changes) is shared with the
    copy, unless it holds modules or tensors.

    Raises:
        SurgeryError: the model can't be copied.
    """
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(model, {**computed, **memo})
    except Exception:  # noqa: BLE001 (an object's own __deepcopy__ may raise anything)
        shared = {id(value): value for _, value in _uncopyable(model) if not _holds_state(value)}
    try:
        return copy.deepcopy(model, {**computed, **shared, **memo})
    except Exception as failure:
        raise SurgeryError(_refusal(model, failure)) from failure


def _uncopyable(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The plain attributes that can't be copied by themselves, each with its full name."""
    own = {id(kept): kept for kept in (*model.modules(), *model.parameters(), *model.buffers())}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in REGISTRIES or isinstance(value, Tensor | nn.Module):
                continue
            try:
                copy.deepcopy(value, dict(own))
            except Exception:  # noqa: BLE001 (an object's own __deepcopy__ may raise anything)
                yield f"{path}.{name}" if path else name, value


def _holds_state(value: Any) -> bool:
    """Whether an object holds modules or tensors, among its attributes or its entries."""
    entries: list[Any] = list(vars(value).values()) if type(value).__dictoffset__ else []
    if isinstance(value, Mapping):
        entries += value.values()
    elif isinstance(value, list | tuple | set):
        entries += value
    return any(isinstance(entry, Tensor | nn.Module) for entry in (value, *entries))


def _refusal(model: nn.Module, failure: Exception) -> str:
    names = [name for name, _ in _uncopyable(model)]
    place = f"its attribute {names[0]} " if names else "it "
    return (
        f"{type(model).__name__} can't be copied: {place}raises {type(failure).__name__}: {failure}; give its class a "
        "__deepcopy__ method, register tensors that it holds as buffers, or detach them"
    )
