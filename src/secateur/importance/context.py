"""What a criterion is given: the network, the examples in cells, and the loss on them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from tqdm import tqdm

from secateur.coupling.network import Group, Network
from secateur.data.batch import Batch, concat_batches, on_device
from secateur.data.forms import ExampleList
from secateur.data.model_inputs import input_error
from secateur.errors import DataError, SecateurError
from secateur.evaluation.losses import Loss, Reference, example_losses
from secateur.graph.program import OpOverride
from secateur.masking.ablation import MeanAblation, Means
from secateur.masking.imputation import ConsumerMoments, LinearImputer

MICROBATCH = 32


@dataclass(frozen=True)
class CriterionContext:
    """Everything that a criterion may use.

    Args:
        network: the traced network.
        groups: the groups to score.
        cells: the examples, at most 32 together; empty where no data was given.
        loss: of an output and a target, one value per example; None for the default.
        means: what stands in the place of absent units, by reader; empty for zero.
        seed: for whatever the criterion draws.
        options: what only some criteria know, such as the number of coalitions.
        progress: whether to show a progress bar.
        moments: of what each reader reads, where absent units are predicted from the others; else empty.
    """

    network: Network
    groups: Sequence[Group]
    cells: Sequence[Batch]
    loss: Loss | None
    means: Means
    seed: int
    options: Mapping[str, Any]
    progress: bool
    moments: Mapping[str, ConsumerMoments] = field(default_factory=dict)

    @cached_property
    def ablation(self) -> MeanAblation:
        """What stands in the place of absent units."""
        return LinearImputer(self.means, self.moments) if self.moments else MeanAblation(self.means)

    def need_examples(self, criterion: str) -> None:
        """
        Raises:
            DataError: there are no examples.
        """
        if not self.cells:
            raise DataError(
                f"{criterion!r} needs examples, but data is None; give data, or rank by 'l1', 'l2' or 'random'"
            )

    def forward(
        self,
        cell: Batch,
        handlers: Mapping[Any, OpOverride] | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Any:
        """The network's output on a cell, with some operators replaced, or some parameters.

        Raises:
            DataError: the network refuses the inputs; its own error is shown.
        """
        try:
            return self.network.program.forward(cell, handlers, weights)
        except SecateurError:
            raise
        except Exception as failure:  # operators raise many types on inputs of a wrong shape or type
            types = (self.network.program.state(name).dtype for name in self.network.program.parameters)
            raise input_error(self.network.title, cell, failure, next(types, None)) from failure

    def losses(self, output: Any, reference: Reference, examples: int) -> Tensor:
        """One finite loss per example."""
        return example_losses(self.loss, output, reference, examples)

    def watched(self, items: Iterable[Any], what: str, total: int | None = None) -> Iterator[Any]:
        """The items, with a progress bar."""
        return iter(tqdm(items, desc=what, total=total, disable=None if self.progress else True, leave=False))


def split_microbatches(batches: Sequence[Batch], device: torch.device, most: int = MICROBATCH) -> list[Batch]:
    """Batches cut into pieces of at most so many examples, on the network's device."""
    cells = []
    for batch in batches:
        size = batch.size or 1
        whole = size <= most or not batch.is_divisible
        pieces = [batch] if whole else [batch.take(index) for index in torch.arange(size).split(most)]
        cells += [on_device(piece, device).map(as_fast_layout) for piece in pieces]
    return cells


def network_microbatches(network: Network, batches: Sequence[Batch], device: torch.device | None = None) -> list[Batch]:
    """Batches in cells for a network: whole where its code fixes their size.

    Args:
        network: the network.
        batches: the examples.
        device: the network's by default.
    """
    return split_microbatches(as_examples(network, batches), device or network.device)


def as_examples(network: Network, batches: Sequence[Batch]) -> list[Batch]:
    """Batches as the network takes them: whole, or each as one example if its first axis is not that of examples."""
    is_one, is_fixed = network.example.is_one_example, network.program.batched is None
    return [replace(batch, is_one_example=is_one, is_whole=is_fixed) for batch in batches]


def shuffled_microbatches(cells: Sequence[Batch], generator: torch.Generator) -> list[tuple[Batch, Tensor]]:
    """The examples in another order, in cells again, each with the old number of its examples.

    Neighbours in the data may be alike, cells should not be. Only examples of one shape can share a cell, and what
    can't be taken apart stays as it is.
    """
    starts = torch.tensor([0, *(cell.size or 1 for cell in cells)]).cumsum(0)
    piles: dict[str, list[tuple[Batch, Tensor]]] = {}
    for number, cell in enumerate(cells):
        apart = cell.size is not None and cell.is_divisible
        leaves = pytree.tree_leaves((cell.args, dict(cell.kwargs), cell.target))
        alike = [_kind_of(leaf) for leaf in leaves]
        key = f"{alike}" if apart else f"cell {number}"
        piles.setdefault(key, []).append((cell, torch.arange(int(starts[number]), int(starts[number + 1]))))
    made = []
    for key, pile in piles.items():
        numbers = torch.cat([each for _, each in pile])
        if key.startswith("cell "):
            made.append((pile[0][0], numbers))
            continue
        whole = concat_batches([cell for cell, _ in pile])
        order = torch.randperm(len(numbers), generator=generator)
        made += [(whole.take(part).map(as_fast_layout), numbers[part]) for part in order.split(MICROBATCH)]
    return made


def _kind_of(leaf: Any) -> Any:
    """What leaves of cells must have in common to be joined."""
    if isinstance(leaf, ExampleList):
        return "by example"
    return (leaf.shape[1:], leaf.dtype) if isinstance(leaf, Tensor) and leaf.dim() else leaf


def as_fast_layout(tensor: Tensor) -> Tensor:
    """Images in the memory layout in which convolutions on a CPU are fastest."""
    is_image = tensor.dim() == 4 and tensor.is_floating_point() and tensor.device.type == "cpu"
    return tensor.contiguous(memory_format=torch.channels_last) if is_image else tensor
