"""The result of matrix pivoting, and how it is read again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.coupling.network import Network
from secateur.entry import entry_point
from secateur.errors import StorageError
from secateur.evaluation.kernel_selection import FastNetwork, MakeKernel, select_network_kernels
from secateur.files import Writer, reading, record_writer
from secateur.options.call_checks import checked_calls
from secateur.sparsity.packed_layers.block_kernels import packed_kernels
from secateur.sparsity.pivoting.saved import PIVOT, SavedPivot, check_pivot, read_pivot, saved_pivot
from secateur.sparsity.results import SparseResult, whole_plan
from secateur.surgery.prepared_load import check_companion, prepare_load
from secateur.tracing import trace


@dataclass(frozen=True, eq=False)
class PivotedLayer:
    """One layer's blocks.

    Args:
        name: the name of its weight.
        blocks: the blocks that are kept (block rows, block columns).
        gather: the input at each position of the block order, None where they are in order (inputs,).
        retained: the fraction of the absolute weight within the blocks when they were chosen last.
    """

    name: str
    blocks: Tensor
    gather: Tensor | None
    retained: float


@checked_calls
@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class PivotResult(SparseResult):
    """A network of few dense blocks: same class and shapes, its units in another order, zero outside of the blocks.

    Args:
        layers: by the names of their weights.
        shape: of a block (rows, columns).
        density: that was asked for.
        is_locally_optimal: whether no other blocks for these orders, and no step of one order alone for these blocks,
            holds more weight, as `search.Pivoted` has it; of the weights when blocks were chosen last.
    """

    layers: Mapping[str, PivotedLayer]
    shape: tuple[int, int]
    density: float
    is_locally_optimal: bool = False

    @property
    def network(self) -> Network:
        """The trace of the model as it was."""
        return self.plan.network

    def __str__(self) -> str:
        rows = [
            f"  {layer.name}: {float(layer.blocks.double().mean()):.1%} of {layer.blocks.numel()} blocks hold "
            f"{layer.retained:.1%} of the weight, {'one gather' if layer.gather is not None else 'no gather'}"
            for layer in self.layers.values()
        ]
        optimum = ", locally optimal" if self.is_locally_optimal else ""
        return "\n".join([f"blocks of {self.shape[0]} x {self.shape[1]}, density {self.density:.1%}{optimum}", *rows])

    def packed(self, inputs: Any) -> tuple[nn.Module, dict[str, str]]:
        """Return a copy whose layers compute their blocks alone, where that is faster on this machine.

        Args:
            inputs: a batch of the size that will be used; each layer is timed on what it gets of it.

        Returns:
            The copy, and the kernel that each layer got: "tiles", "bsr", "loops", or "dense" where that is fastest.
        """
        fast = self._packed(inputs)
        return fast.model, fast.kernels

    def _packed(self, inputs: Any) -> FastNetwork:
        modules = dict(self.model.named_modules())
        makers: dict[str, Mapping[str, MakeKernel]] = {}
        for name, layer in self.layers.items():
            path, _, attribute = name.rpartition(".")
            fits = attribute == "weight" and path in modules  # else a weight that the model's own code multiplies by
            makers[name] = packed_kernels(modules[path], layer.blocks, self.shape, layer.gather) if fits else {}
        return select_network_kernels(self.model, inputs, makers)

    def _fastest(self) -> FastNetwork:
        return self._packed(self._example)

    def _structures(self) -> Mapping[str, str]:
        size = f"{self.shape[0]} x {self.shape[1]}"
        return {
            name: f"{int(layer.blocks.sum())} of {layer.blocks.numel()} blocks of {size}"
            f"{', a gather' if layer.gather is not None else ''}"
            for name, layer in self.layers.items()
        }

    def _companions(self) -> Mapping[str, Writer]:
        return {**super()._companions(), PIVOT: record_writer(saved_pivot(self.shape, self.density, self.layers))}

    def _notes(self) -> tuple[str, ...]:
        shares = ", ".join(f"{name} {layer.retained:.1%}" for name, layer in self.layers.items())
        optimum = "a local optimum of the search" if self.is_locally_optimal else "not a local optimum of the search"
        return (f"weight in the blocks when they were chosen last: {shares}; {optimum}",)


@entry_point
def load_pivoted(model: nn.Module, folder: str | Path, example_inputs: Any) -> PivotResult:
    """Read a result that `PivotResult.save` wrote, onto a fresh model.

    Raises:
        StorageError: a file is missing, damaged, or of another network.
    """
    folder = Path(folder)
    prepared_load = prepare_load(model, folder)
    with reading(folder) as path_of:
        record = read_pivot(path_of(PIVOT))
        if isinstance(record, SavedPivot):
            check_companion(folder, path_of, PIVOT)
    try:
        check_pivot(record, prepared_load.tensors)
    except StorageError as failure:
        raise StorageError(f"{folder / PIVOT} does not belong to this {type(model).__name__}: {failure}") from failure
    layers = {
        name: PivotedLayer(
            name,
            torch.tensor(layer.blocks, dtype=torch.bool),
            None if layer.gather is None else torch.tensor(layer.gather),
            layer.retained,
        )
        for name, layer in record.layers.items()
    }
    loaded = prepared_load.commit()
    network = trace(loaded, example_inputs)
    return PivotResult(
        model=loaded, plan=whole_plan(network, {"density": record.density}), layers=layers, shape=record.shape,
        density=record.density,
    )  # fmt: skip
