"""Wrappers of whole models, such as data parallelism and `torch.compile`."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

COMPILED = "_orig_mod"


def unwrap_model(model: nn.Module) -> nn.Module:
    """Return the model within one or several nested wrappers; any other model itself.

    Examples:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 2)
        >>> unwrap_model(torch.nn.DataParallel(layer)) is layer
        True
    """
    while (inner := _wrapped_model(model)) is not None:
        model = inner
    return model


def _wrapped_model(model: nn.Module) -> nn.Module | None:
    """Return the model within a wrapper, None if the model is no wrapper."""
    if isinstance(model, DataParallel | DistributedDataParallel):
        inner: nn.Module = model.module
        return inner
    if type(model).__module__.startswith("torch._dynamo"):  # OptimizedModule, whose import takes seconds
        return model._modules.get(COMPILED)
    return None


def plain_path(model: nn.Module, path: str) -> str:
    """Return the path of a module or tensor of a model without the names of the wrappers within the model.

    Examples:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.DataParallel(torch.nn.Linear(2, 2)))
        >>> plain_path(model, "0.module.weight")
        '0.weight'
    """
    names, plain_parts, module = path.split("."), [], model
    for name in names:
        if _wrapped_model(module) is None:
            plain_parts.append(name)
        module = module._modules.get(name) or module
    return ".".join(plain_parts)


def holds_wrappers(model: nn.Module) -> bool:
    """Return whether a module within the model is a wrapper."""
    return any(_wrapped_model(module) is not None for module in model.modules())


def unwrap_children(model: nn.Module) -> None:
    """Replace wrappers within a model by their content, so that the names of its parameters are the plain ones."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            plain_child = unwrap_model(child)
            if plain_child is not child:
                module._modules[name] = plain_child


@contextmanager
def without_compilation() -> Iterator[None]:
    """Run functions and modules given to `torch.compile` without compilation, within a context."""
    with torch.compiler.set_stance("force_eager"):
        yield


def is_compiled(model: nn.Module) -> bool:
    """Return whether a module of the model was given to `torch.compile`, in place or as a wrapper."""
    return any(module._compiled_call_impl is not None or COMPILED in module._modules for module in model.modules())
