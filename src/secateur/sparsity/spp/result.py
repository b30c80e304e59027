"""What SPP gives back."""

from collections.abc import Mapping
from dataclasses import dataclass

from secateur.evaluation.kernel_selection import FastNetwork, select_network_kernels
from secateur.sparsity.packed_layers.gathered_conv import gathered_kernels
from secateur.sparsity.results import SparseResult
from secateur.surgery.recipe import Recipe


@dataclass(frozen=True, eq=False, kw_only=True)
class SPPResult(SparseResult):
    """What SPP leaves: the model with pruned columns at zero, and without channels that nobody reads any more.

    Args:
        recipe: by which those were cut.
        columns: for each layer how many columns there were, and how many are left.
        weights: the names of the layers' weights.
        left_out: the convolutions that were not pruned, and why.
    """

    recipe: Recipe
    columns: Mapping[str, tuple[int, int]]
    weights: Mapping[str, str]
    left_out: Mapping[str, str]

    def __str__(self) -> str:
        rows = [f"  {name}: {left} of {dense} columns" for name, (dense, left) in self.columns.items()]
        rows += [f"  {name} is as it was: {reason}" for name, reason in self.left_out.items()]
        units = sum(len(kept) for kept in self.plan.kept.values())
        return "\n".join([f"units {self.plan.network.units} -> {units}", *rows])

    def _fastest(self) -> FastNetwork:
        example = self.plan.network.example if self.session is None else self.session.example
        return select_network_kernels(self.model, example, gathered_kernels(self.model, self.weights.values()))

    def _structures(self) -> Mapping[str, str]:
        return {self.weights[name]: f"{left} of {dense} columns" for name, (dense, left) in self.columns.items()}

    def _notes(self) -> tuple[str, ...]:
        return tuple(f"{name} is as it was: {reason}" for name, reason in self.left_out.items())
