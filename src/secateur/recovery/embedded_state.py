"""The tensors of a cut network in the dense one's program: held in their cut shapes, expanded where they are read."""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.graph.program import Program
from secateur.masking.parameter_copies import ParameterCopy
from secateur.surgery.recipe_attributes import Slices
from secateur.utils.mapped_tensors import SpillingTensors


class EmbeddedState(MutableMapping[str, Tensor]):
    """Parameters and buffers by name, read and written in the dense shapes, and held in the cut ones.

    The removed entries are those of the dense network. Tensors are replaced, and never changed in place, so that those
    that no repair has replaced share the memory of the cut model, or of the dense one where nothing was cut yet. New
    tensors are held in memory up to a limit, and beyond it in temporary files.

    Args:
        program: the dense network's.
        tensors: the tensors, in the cut or in the dense shapes.
        slices: the positions that stay, by tensor and axis; tensors without any have the dense shape.
        cut: the names of those that have the cut shapes.
    """

    def __init__(
        self, program: Program, tensors: Mapping[str, Tensor], slices: Slices, cut: Iterable[str] = ()
    ) -> None:
        self._program, self._tensors, self._slices, self._cut = program, SpillingTensors(tensors), slices, set(cut)

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        return _expand(tensor, self._program.state(name).detach(), self.axes(name)) if name in self._cut else tensor

    def __setitem__(self, name: str, value: Tensor) -> None:
        self.replace_compact(name, self._sliced(name, value))

    def replace_compact(self, name: str, value: Tensor) -> None:
        """Replace a tensor by another one in the cut shape."""
        self._tensors[name] = value
        if self.axes(name):
            self._cut.add(name)

    def _sliced(self, name: str, value: Tensor) -> Tensor:
        """Select the positions that stay of a tensor in the dense shape."""
        for axis, positions in self.axes(name).items():
            value = value.index_select(axis, positions.to(value.device))
        return value

    def __delitem__(self, name: str) -> None:
        del self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def axes(self, name: str) -> Mapping[int, Tensor]:
        """Return the positions that stay of a tensor, by axis; empty where all do."""
        return self._slices.get(name, {})

    def compact(self, name: str) -> Tensor:
        """Return a tensor in the cut shape."""
        return self._tensors[name] if name in self._cut else self._sliced(name, self._tensors[name])


class FixedValues(Mapping[Node, Any]):
    """Parameters, buffers, constants and copies of parameters in the cut network, expanded when an operator reads them.

    What was expanded is kept as long as this object; weights of layers that compute kept positions alone are not.

    Args:
        program: the dense network's.
        state: the parameters and buffers by name.
        compact: the placeholders that are read in the cut shape.
        replaced: tensors by name, in the place of those of the state.
        copies: operators that copied a parameter before the run starts.
    """

    def __init__(
        self,
        program: Program,
        state: EmbeddedState,
        compact: frozenset[Node],
        replaced: Mapping[str, Tensor],
        copies: Mapping[Node, ParameterCopy],
    ) -> None:
        self._program, self._compact, self._copies = program, compact, copies
        self._state, self._replaced = state, replaced
        self._expanded: dict[Node, Tensor] = {}
        self._expanded_replaced: dict[Node, Tensor] = {}

    def with_tensors(self, replaced: Mapping[str, Tensor]) -> "FixedValues":
        """Return the same with tensors by name in the place of those of the state; what was expanded is shared."""
        other = copy(self)
        other._replaced, other._expanded_replaced = replaced, {}
        return other

    def __getitem__(self, node: Node) -> Any:
        if node in self._program.constants:
            return self._program.constants[node]
        if node not in self._copies and node not in self._program.state_names:
            raise KeyError(node)
        if node in self._compact:
            name = self._program.state_names[node]
            return self._replaced[name] if name in self._replaced else self._state.compact(name)
        parameter_copy = self._copies.get(node)
        name = self._program.state_names[node] if parameter_copy is None else parameter_copy.name
        expanded = self._expanded_replaced if name in self._replaced else self._expanded
        if node not in expanded:
            value = self._replaced[name] if name in self._replaced else self._state[name]
            expanded[node] = value if parameter_copy is None else parameter_copy.value(value)
        return expanded[node]

    def __contains__(self, node: object) -> bool:
        return any(node in nodes for nodes in (self._program.state_names, self._program.constants, self._copies))

    def __iter__(self) -> Iterator[Node]:
        return iter({**self._program.state_names, **self._program.constants, **self._copies})

    def __len__(self) -> int:
        return sum(1 for _ in self)


def expanded_vector(value: Tensor, length: int, positions: Tensor) -> Tensor:
    """Return a vector with its entries at some positions, and zeros elsewhere. (length,)"""
    return _expand(value, value.new_zeros(length), {0: positions})


def _expand(value: Tensor, dense: Tensor, axes: Mapping[int, Tensor]) -> Tensor:
    """Return a cut tensor in the dense shape; removed entries are those of the dense tensor."""
    expanded_tensor = dense.clone()
    grid = [axes.get(axis, torch.arange(length)) for axis, length in enumerate(dense.shape)]
    expanded_tensor[torch.meshgrid(*[index.to(expanded_tensor.device) for index in grid], indexing="ij")] = value
    return expanded_tensor
