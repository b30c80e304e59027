"""The result of SPP."""

from collections.abc import Mapping
from dataclasses import dataclass

from secateur.evaluation.kernel_selection import FastNetwork, select_network_kernels
from secateur.options.call_checks import checked_calls
from secateur.sparsity.packed_layers.gathered_conv import gathered_kernels
from secateur.sparsity.results import SparseResult
from secateur.surgery.recipe import Recipe


@checked_calls
@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class SPPResult(SparseResult):
    """A model with pruned columns at zero, without the channels that no column reads any more.

    Args:
        recipe: the changes by which those channels were cut.
        columns: the numbers of columns before and after, by layer.
        weights: the names of the layers' weights.
        left_out: the convolutions that were not pruned, with the reasons.
    """

    recipe: Recipe
    columns: Mapping[str, tuple[int, int]]
    weights: Mapping[str, str]
    left_out: Mapping[str, str]

    def __str__(self) -> str:
        rows = [f"  {name}: {structure}" for name, structure in self._columns_kept().items()]
        units = sum(len(kept) for kept in self.plan.kept.values())
        return "\n".join([f"units {self.plan.network.units} -> {units}", *rows, *(f"  {n}" for n in self._notes())])

    def _fastest(self) -> FastNetwork:
        return select_network_kernels(self.model, self._example, gathered_kernels(self.model, self.weights.values()))

    def _columns_kept(self) -> dict[str, str]:
        return {name: f"{kept} of {dense} columns" for name, (dense, kept) in self.columns.items()}

    def _structures(self) -> Mapping[str, str]:
        return {self.weights[name]: text for name, text in self._columns_kept().items()}

    def _notes(self) -> tuple[str, ...]:
        return tuple(f"{name} is as it was: {reason}" for name, reason in self.left_out.items())
