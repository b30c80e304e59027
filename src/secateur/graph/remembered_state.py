"""State that a model's own code keeps from the last batch.

Detection heads make their anchors anew only where the feature maps have another shape than the last ones. Exported in
the state after a batch, such a head is tied to that batch's shape, so it is exported as if it had seen none. Attention
with a table of biases by position keeps them in evaluation mode, in a dict. A cut model must compute them anew.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.graph.attribute_snapshots import attributes_restored
from secateur.graph.contexts import isolated_evaluation, run_module

TORCH_ATTRIBUTES = frozenset({"_parameters", "_buffers", "_modules", "training"})


@dataclass(frozen=True)
class RememberedAttribute:
    """An attribute that a forward pass on inputs of other sizes replaces.

    Args:
        module: whose it is.
        name: its name.
    """

    module: nn.Module
    name: str

    def forget(self) -> None:
        """Reset the attribute to the class's own value, or to a value that equals no shape and no cache."""
        if hasattr(type(self.module), self.name):
            del vars(self.module)[self.name]
        else:
            vars(self.module)[self.name] = _blank(vars(self.module)[self.name])


def remembered_attributes(model: nn.Module, batch: Batch) -> list[RememberedAttribute]:
    """Find the attributes that change when the model runs on batches of other sizes than the example's.

    Only a model that holds a shape or a tensor outside its parameters and buffers is run.
    """
    modules = list(model.modules())
    if not any(_may_be_remembered(value) for module in modules for _, value in _plain_attributes(module)):
        return []
    before = {
        module: {name: (value, _content(value)) for name, value in _plain_attributes(module)} for module in modules
    }
    names: dict[tuple[nn.Module, str], None] = {}
    for other_batch in _of_other_sizes(batch):
        with isolated_evaluation(model), torch.random.fork_rng(devices=[]):
            try:
                run_module(model, other_batch)
            except DataError:  # the model takes no such batch, so it keeps nothing of one
                continue
            for module in modules:
                for name, value in _plain_attributes(module):
                    if name in before[module] and not _is_same_attribute(
                        before[module][name], (value, _content(value))
                    ):
                        names[module, name] = None
    return [RememberedAttribute(module, name) for module, name in names]


def cached_tensors(model: nn.Module, batch: Batch) -> list[RememberedAttribute]:
    """Find the dicts of tensors that a run in evaluation mode fills: emptied, they are filled with the same again.

    Only a model with a dict of tensors among its attributes is run, once for each name of such an attribute.
    """
    by_name: dict[str, list[nn.Module]] = {}
    for module in model.modules():
        for name, value in _plain_attributes(module):
            if type(value) is dict and value and all(isinstance(tensor, Tensor) for tensor in value.values()):
                by_name.setdefault(name, []).append(module)
    attributes = []
    for name, modules in by_name.items():
        filled_caches = {module: vars(module)[name] for module in modules}
        with isolated_evaluation(model), torch.random.fork_rng(devices=[]):
            for module in modules:
                vars(module)[name] = {}
            try:
                run_module(model, batch)
            except DataError:  # the model's code reads what it does not fill
                continue
            attributes += [
                RememberedAttribute(module, name)
                for module, tensors in filled_caches.items()
                if _are_same_tensors(vars(module)[name], tensors)
            ]
    return attributes


def replaced_buffers(model: nn.Module, batch: Batch) -> list[tuple[nn.Module, str, Tensor]]:
    """Find the buffers that the model's code replaces by others of another shape, such as the positions of patches.

    Returns:
        Their modules, their names, and what a run on the batch puts in their place; the model is as it was.
    """
    before = [(module, *entry) for module in model.modules() for entry in module._buffers.items()]
    with isolated_evaluation(model), torch.random.fork_rng(devices=[]):
        run_module(model, batch)
        now = [(module, name, module._buffers.get(name)) for module, name, _ in before]
    return [
        (module, name, new)
        for (module, name, new), (_, _, old) in zip(now, before, strict=True)
        if isinstance(new, Tensor) and isinstance(old, Tensor) and new.shape != old.shape
    ]


def _are_same_tensors(tensors: Any, filled_caches: dict[Any, Tensor]) -> bool:
    """Return whether a dict has the same tensors as another, under the same keys."""
    return tensors.keys() == filled_caches.keys() and all(
        isinstance(tensor, Tensor)
        and tensor.dtype == filled_caches[key].dtype
        and torch.equal(tensor, filled_caches[key])
        for key, tensor in tensors.items()
    )


def empty_caches(model: nn.Module, caches: Iterable[tuple[str, str]]) -> None:
    """Empty the dicts of tensors that a model's code fills.

    Args:
        model: the model.
        caches: the path of a module and the name of its attribute, of each dict.
    """
    for path, name in caches:
        vars(model.get_submodule(path))[name] = {}


@contextmanager
def attributes_forgotten(model: nn.Module, attributes: list[RememberedAttribute]) -> Iterator[None]:
    """Reset the remembered attributes of a model within a context; restore them on leaving."""
    with attributes_restored(model):
        for attribute in attributes:
            attribute.forget()
        yield


def _plain_attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in list(vars(module).items()) if name not in TORCH_ATTRIBUTES)


def _may_be_remembered(value: Any) -> bool:
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return any(_may_be_remembered(nested) for nested in value)
    return isinstance(value, torch.Size) or (isinstance(value, Tensor) and value.numel() > 0)


def _content(value: Any) -> Any:
    """Return a copy of the entries of a list or dict, which may be changed in place."""
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list) else value


def _is_same_attribute(before: tuple[Any, Any], now: tuple[Any, Any]) -> bool:
    if isinstance(now[1], list) and isinstance(before[1], list):
        pairs = zip(before[1], now[1], strict=False)
        return len(before[1]) == len(now[1]) and all(_is_same_entry(a, b) for a, b in pairs)
    return _is_same_entry(before[0], now[0])


def _is_same_entry(before: Any, now: Any) -> bool:
    if before is now:
        return True
    return not isinstance(before, Tensor) and type(before) is type(now) and bool(before == now)


def _blank(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.new_empty(0)
    if isinstance(value, list):
        return [_blank(nested) for nested in value]
    return {} if isinstance(value, dict) else None


def _of_other_sizes(batch: Batch) -> Iterator[Batch]:
    """Return the example with one more example, and with twice the length along the axes behind the channels."""
    yield batch.map(lambda tensor: torch.cat([tensor, tensor[:1]]))
    yield batch.map(_double_axes)


def _double_axes(tensor: Tensor) -> Tensor:
    axes = range(2, tensor.dim()) if tensor.dim() > 3 else range(1, tensor.dim() - 1)
    for axis in axes:
        tensor = torch.cat([tensor, tensor], axis)
    return tensor
