"""Deep copies of models, including models with objects that can't be copied."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from secateur.errors import SurgeryError
from secateur.utils.failure_text import failure_text

REGISTRIES = ("_parameters", "_buffers", "_modules")


def copy_model(model: nn.Module, memo: Mapping[int, Any]) -> nn.Module:
    """Copy a model deeply; `memo` maps the ids of objects to their substitutes.

    A plain attribute that can't be copied (a lock, a file, a configuration that refuses changes) is shared with the
    copy, unless it holds modules or tensors. Tensors that gradients pass are copied without them.

    Raises:
        SurgeryError: the model can't be copied.
    """
    computed_copies = {id(tensor): tensor.detach().clone() for tensor in _computed_tensors(model)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, on copies of a GraphModule
        try:
            return copy.deepcopy(model, {**computed_copies, **memo})
        except Exception:  # noqa: BLE001 (an object's own __deepcopy__ may raise anything)
            shared_values = {id(value): value for _, value in _uncopyable_attributes(model) if not _holds_state(value)}
        try:
            return copy.deepcopy(model, {**computed_copies, **shared_values, **memo})
        except Exception as failure:
            raise SurgeryError(_refusal(model, failure)) from failure


def copy_sharing_parameters(model: nn.Module) -> nn.Module:
    """Copy a model deeply but for the memory of its parameters, which both models share.

    Parameters of subclasses of `nn.Parameter` are copied with their memory, as such classes may hold more tensors.

    Raises:
        SurgeryError: the model can't be copied.

    Examples:
        >>> layer = nn.Linear(2, 2)
        >>> double = copy_sharing_parameters(layer)
        >>> double.weight is layer.weight, double.weight.data_ptr() == layer.weight.data_ptr()
        (False, True)
    """
    plain_parameters = (parameter for parameter in model.parameters() if type(parameter) is nn.Parameter)
    return copy_model(
        model, {id(weight): nn.Parameter(weight.data, weight.requires_grad) for weight in plain_parameters}
    )


def stop_sharing_parameters(small: nn.Module, model: nn.Module) -> None:
    """Give memory of their own to those parameters of a copy that share it with the model."""
    shared_pointers = {parameter.data_ptr() for parameter in model.parameters()}
    for parameter in small.parameters():
        if parameter.data_ptr() in shared_pointers:
            parameter.data = parameter.data.clone()


def _computed_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Yield the results of operators that gradients pass, among the attributes of modules and the entries of these."""
    for module in model.modules():
        for name, value in vars(module).items():
            entries = (
                value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
            )
            if name not in REGISTRIES:
                yield from (entry for entry in entries if isinstance(entry, Tensor) and not entry.is_leaf)


def _uncopyable_attributes(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the plain attributes that can't be copied, with their full names."""
    module_values = {id(kept): kept for kept in (*model.modules(), *model.parameters(), *model.buffers())}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in REGISTRIES or isinstance(value, Tensor | nn.Module):
                continue
            try:
                copy.deepcopy(value, dict(module_values))
            except Exception:  # noqa: BLE001 (an object's own __deepcopy__ may raise anything)
                yield f"{path}.{name}" if path else name, value


def _holds_state(value: Any) -> bool:
    """Return whether an object has modules or tensors among its attributes or entries."""
    entries: list[Any] = list(vars(value).values()) if type(value).__dictoffset__ else []
    if isinstance(value, Mapping):
        entries += value.values()
    elif isinstance(value, list | tuple | set):
        entries += value
    return any(isinstance(entry, Tensor | nn.Module) for entry in (value, *entries))


def _refusal(model: nn.Module, failure: Exception) -> str:
    attributes = [name for name, _ in _uncopyable_attributes(model)]
    location = f"its attribute {attributes[0]} " if attributes else "it "
    return (
        f"{type(model).__name__} can't be copied: {location}raises {failure_text(failure)}; give its class "
        "a __deepcopy__ method, register tensors that it holds as buffers, or detach them"
    )
