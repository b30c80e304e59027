"""A copy of a model that shares its memory, and can be cut and restored many times."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateur.graph.attribute_snapshots import ModelSnapshot
from secateur.graph.model_copies import copy_model
from secateur.surgery.apply_recipe import apply_recipe
from secateur.surgery.recipe import Recipe
from secateur.surgery.stand_in_weights import with_stand_ins
from secateur.utils.mapped_tensors import TensorRoom


class AliasedModel:
    """A copy of a model's modules that shares the memory of its parameters and buffers.

    Args:
        model: it is not changed. The copy is in evaluation mode.
        weights: other values for some parameters of the copy, by name.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor] | None = None) -> None:
        self.model = alias_model(model)
        with_stand_ins(self.model, weights or {})
        self.calls = 0
        for module in self.model.modules():
            module.training = False
            module.register_forward_hook(self._count)
        self._whole = ModelSnapshot.of(self.model)
        self._tensors = (*self.model.parameters(), *self.model.buffers())

    def _count(self, *_: Any) -> None:
        self.calls += 1

    @contextmanager
    def cut(self, recipe: Recipe) -> Iterator[nn.Module]:
        """Apply a recipe within a context; the model is restored on leaving, whatever ran on it."""
        data = [(tensor, tensor.data) for tensor in self._tensors]
        self.calls = 0
        try:
            apply_recipe(self.model, recipe, TensorRoom())
            yield self.model
        finally:
            self._whole.restore()
            for tensor, original in data:
                tensor.data = original


def alias_model(model: nn.Module) -> nn.Module:
    """Copy a model's modules, with other tensors that share the memory of its parameters and buffers."""
    tensors = (*model.parameters(), *model.buffers())
    return copy_model(model, {id(tensor): _double(tensor) for tensor in tensors})


def _double(tensor: Tensor) -> Tensor:
    """Return another tensor object with the same memory."""
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(tensor.data, requires_grad=False)
    with torch.no_grad():
        return tensor.detach()
