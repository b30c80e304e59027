"""What a model's own code keeps from the last batch, as in a fresh model.

Detection heads make their anchors anew only where the feature maps have another shape than the last ones. Exported in
the state after a batch, such a head is tied to that batch's shape, so it is exported as if it had seen none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.graph.attribute_snapshots import attributes_restored
from secateur.graph.program import preserved, run_module

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
        """Put the class's own value in its place, or one that equals no shape and no cache."""
        if hasattr(type(self.module), self.name):
            del vars(self.module)[self.name]
        else:
            vars(self.module)[self.name] = _blank(vars(self.module)[self.name])


def remembered(model: nn.Module, batch: Batch) -> list[RememberedAttribute]:
    """The attributes that change when the model runs on batches of other sizes than the example's.

    Only a model that holds a shape or a tensor outside its parameters and buffers is run.
    """
    modules = list(model.modules())
    if not any(_may_be_remembered(value) for module in modules for _, value in _attributes(module)):
        return []
    before = {module: {name: (value, _content(value)) for name, value in _attributes(module)} for module in modules}
    names: dict[tuple[nn.Module, str], None] = {}
    for other in _of_other_sizes(batch):
        with preserved(model), torch.random.fork_rng(devices=[]):
            try:
                run_module(model, other)
            except DataError:  # the model takes no such batch, so it keeps nothing of one
                continue
            for module in modules:
                for name, value in _attributes(module):
                    if name in before[module] and not _is_same(before[module][name], (value, _content(value))):
                        names[module, name] = None
    return [RememberedAttribute(module, name) for module, name in names]


@contextmanager
def forgotten(model: nn.Module, attributes: list[RememberedAttribute]) -> Iterator[None]:
    """The model as if it had seen no batch; on leaving, it is as it was."""
    with attributes_restored(model):
        for attribute in attributes:
            attribute.forget()
        yield


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in list(vars(module).items()) if name not in TORCH_ATTRIBUTES)


def _may_be_remembered(value: Any) -> bool:
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return any(_may_be_remembered(part) for part in value)
    return isinstance(value, torch.Size) or (isinstance(value, Tensor) and value.numel() > 0)


def _content(value: Any) -> Any:
    """What a list or dict holds now, as it may be changed in place."""
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list) else value


def _is_same(before: tuple[Any, Any], now: tuple[Any, Any]) -> bool:
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
        return [_blank(part) for part in value]
    return {} if isinstance(value, dict) else None


def _of_other_sizes(batch: Batch) -> Iterator[Batch]:
    """The example with one more example, and with twice the length along the axes behind the channels."""
    yield batch.map(lambda tensor: torch.cat([tensor, tensor[:1]]))
    yield batch.map(_doubled)


def _doubled(tensor: Tensor) -> Tensor:
    axes = range(2, tensor.dim()) if tensor.dim() > 3 else range(1, tensor.dim() - 1)
    for axis in axes:
        tensor = torch.cat([tensor, tensor], axis)
    return tensor
