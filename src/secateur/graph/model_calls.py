"""Calls of models: without caches, with named inputs, and with outputs of tensors alone."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.options import kind_text
from secateur.utils.default_device import on_callers_device

CACHE = "use_cache"
PLAIN = (Tensor, int, float, bool, str, torch.SymInt, torch.SymFloat, torch.SymBool)


def call_model(model: nn.Module, batch: Batch) -> Any:
    """Compute a model's output on a batch, with None in place of caches and of other objects that are no tensors.

    The model gets copies of the inputs: its first operator may write to them.

    Raises:
        DataError: it is an object in which torch finds no tensor.
    """
    batch_copy = batch.with_copied_inputs()
    output = on_callers_device(model)(*batch_copy.args, **batch_copy.kwargs, **cache_disabled(model, batch))
    plain_result = plain_output(output)
    if plain_result is None and output is not None:
        raise DataError(
            f"{type(model).__name__} returns {kind_text(output)} without a tensor that torch finds in it; let "
            "forward return tensors: one, or several in tuples, lists, dicts or dataclasses"
        )
    return plain_result


def cache_disabled(model: nn.Module, batch: Batch) -> Mapping[str, bool]:
    """Return the keyword that disables the cache of a decoder of the transformers library, if forward has it."""
    signature = inspect.signature(model.forward)
    names = list(signature.parameters)
    if CACHE in batch.kwargs or CACHE in names[: len(batch.args)] or not _takes_cache(model):
        return {}
    return {CACHE: False}


def _takes_cache(model: nn.Module) -> bool:
    """Return whether forward has the keyword itself, or passes `**kwargs` to its only child."""
    parameters = inspect.signature(model.forward).parameters
    if CACHE in parameters:
        return True
    children = list(model.children())
    hands_on = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values())
    return hands_on and len(children) == 1 and _takes_cache(children[0])


def plain_output(output: Any) -> Any:
    """Convert an output to tensors, numbers and None; a dataclass that is unknown to torch becomes a dict."""

    def plain(leaf: Any) -> Any:
        if leaf is None or isinstance(leaf, PLAIN):
            return leaf
        if is_dataclass(leaf) and not isinstance(leaf, type):
            return plain_output({field.name: getattr(leaf, field.name) for field in fields(leaf)})
        return None

    return pytree.tree_map(plain, output)


@contextmanager
def plain_forward(model: nn.Module, batch: Batch) -> Iterator[None]:
    """Let `model.forward` take the batch's inputs as named parameters and return tensors alone, within a context.

    `torch.export` knows no dynamic shapes for `*args` and `**kwargs`, and no outputs such as caches.
    """
    forward, values = model.forward, vars(model)
    before = dict(values)
    keywords = cache_disabled(model, batch)

    def adapted_forward(*args: Any, **kwargs: Any) -> Any:
        return plain_output(forward(*args, **kwargs, **keywords))

    adapted_forward.__signature__ = _named_signature(forward, batch)  # type: ignore[attr-defined]
    values["forward"] = adapted_forward
    try:
        yield
    finally:
        values.pop("forward")
        if "forward" in before:
            values["forward"] = before["forward"]


def _named_signature(forward: Any, batch: Batch) -> inspect.Signature:
    """Return the signature of forward with named parameters in place of `*args` and `**kwargs`."""
    signature = inspect.signature(forward)
    named_parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.kind == parameter.VAR_POSITIONAL:
            surplus = range(len(named_parameters), len(batch.args))
            named_parameters = [
                before.replace(default=parameter.empty) if surplus else before for before in named_parameters
            ]
            named_parameters += [inspect.Parameter(f"{parameter.name}_{index}", ORDINARY) for index in surplus]
        elif parameter.kind == parameter.VAR_KEYWORD:
            surplus_names = [name for name in batch.kwargs if name not in signature.parameters]
            named_parameters += [inspect.Parameter(name, parameter.KEYWORD_ONLY) for name in surplus_names]
        else:
            named_parameters.append(parameter)
    return signature.replace(parameters=named_parameters)


ORDINARY = inspect.Parameter.POSITIONAL_OR_KEYWORD
