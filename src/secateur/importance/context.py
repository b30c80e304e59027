"""The input of a criterion: the network, the examples in microbatches, and the loss on them."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from secateur.coupling.group import Group
from secateur.coupling.network import Network
from secateur.data.batch import Batch, on_device
from secateur.data.model_inputs import input_error
from secateur.data.regrouping import regrouped_batches
from secateur.errors import DataError, SecateurError
from secateur.evaluation.divergence import output_scales
from secateur.evaluation.losses import Loss, Reference, example_losses
from secateur.evaluation.outputs import with_named_scores
from secateur.evaluation.token_scores import has_token_scores
from secateur.graph.program import OpOverride
from secateur.graph.value_bytes import examples_within
from secateur.importance.scores import GroupScores, Scores
from secateur.masking.ablation import MeanAblation, Means
from secateur.masking.imputation import ConsumerMoments, LinearImputer
from secateur.options.call_checks import checked_calls
from secateur.utils.progress import track

MICROBATCH = 32  # examples
MICROBATCH_BYTES = 1 << 29  # of values that a pass with gradients holds, on a processor
JOINED_BYTES = 1 << 32  # the same, up to which small batches of the data are joined

ProgressSink = Callable[[str, Callable[[], Mapping[str, GroupScores]]], None]


@checked_calls
@dataclass(frozen=True)
class CriterionContext:
    """Everything that a criterion may use.

    Args:
        network: the traced network.
        groups: the groups to score.
        microbatches: the examples, at most 32 together; empty where no data was given.
        loss: a function of an output and a target that returns one value per example; None for the default.
        means: the replacements of absent units, by consumer; empty for zero.
        seed: the seed of whatever the criterion draws.
        moments: the moments of each consumer's input, where absent units are predicted from the others; else empty.
        resume_from: the scores of an earlier run to continue, or None.
        on_progress: a function that takes the name of a game and a function that returns the scores of its groups so
            far; None where no progress is recorded.
    """

    network: Network
    groups: Sequence[Group]
    microbatches: Sequence[Batch]
    loss: Loss | None
    means: Means
    seed: int
    moments: Mapping[str, ConsumerMoments] = field(default_factory=dict)
    resume_from: Scores | None = None
    on_progress: ProgressSink | None = None

    @property
    def cells(self) -> Sequence[Batch]:
        """The microbatches, by their name of version 0.9."""
        warnings.warn(
            "context.cells is now context.microbatches; the old name is removed in version 1.0",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.microbatches

    @cached_property
    def ablation(self) -> MeanAblation:
        """The replacement of absent units."""
        return LinearImputer(self.means, self.moments) if self.moments else MeanAblation(self.means)

    @cached_property
    def output_scales(self) -> list[Tensor] | None:
        """The mean squares of the dense outputs over all microbatches; None where the loss is the user's own."""
        if self.loss is not None:
            return None
        with torch.no_grad():
            outputs = (with_named_scores(self.forward(batch), batch.has_token_scores) for batch in self.microbatches)
            return output_scales(outputs)

    @cached_property
    def example_count(self) -> int:
        """The number of examples in all microbatches."""
        return sum(batch.size or 1 for batch in self.microbatches)

    def need_examples(self, criterion: str) -> None:
        """Check that there are examples.

        Raises:
            DataError: there are none.
        """
        if not self.microbatches:
            advice = "give data, or rank by 'l1', 'l2' or 'random'"
            raise DataError(f"{criterion!r} needs examples, but data is None; {advice}")

    def forward(
        self,
        batch: Batch,
        handlers: Mapping[Any, OpOverride] | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Any:
        """Return the network's output on a microbatch, with some operators or parameters replaced.

        Raises:
            DataError: the network refuses the inputs; the message holds its own error.
        """
        try:
            return self.network.program.forward(batch, handlers, weights)
        except SecateurError:
            raise
        except Exception as failure:  # operators raise many types on inputs of a wrong shape or type
            types = (self.network.program.state(name).dtype for name in self.network.program.parameters)
            raise input_error(self.network.title, batch, failure, next(types, None)) from failure

    def losses(self, output: Any, reference: Reference, examples: int) -> Tensor:
        """Return one finite loss per example, (examples,)."""
        return example_losses(self.loss, output, reference, examples)

    def watched(self, items: Iterable[Any], description: str, total: int | None = None) -> Iterator[Any]:
        """Iterate over items, and report the progress."""
        return track(items, description, total)


def split_microbatches(batches: Sequence[Batch], device: torch.device, limit: int = MICROBATCH) -> list[Batch]:
    """Split batches into microbatches on a device.

    Args:
        batches: the examples; those that are not divisible stay as they are.
        device: the network's device.
        limit: the largest number of examples in a microbatch.
    """
    microbatches = []
    for batch in batches:
        size = batch.size or 1
        most = limit if batch.has_target_by_example else max(limit, MICROBATCH)
        stays_whole = size <= most or not batch.is_divisible
        pieces = [batch] if stays_whole else [batch.take(index) for index in torch.arange(size).split(most)]
        microbatches += [on_device(piece, device).map(as_fast_layout) for piece in pieces]
    return microbatches


def network_microbatches(
    network: Network,
    batches: Sequence[Batch],
    device: torch.device | None = None,
    fits_memory: bool = True,
    joins: bool = True,
) -> list[Batch]:
    """Divide the examples into microbatches for a network; batches stay whole where its code fixes their size.

    Neighbouring batches of one form are joined first, so that the microbatches are the same however the data are
    grouped. They stay apart where a pass on a microbatch would hold more than 4 GiB: small batches may then be what
    the memory allows.

    Args:
        network: the network.
        batches: the examples.
        device: the network's by default.
        fits_memory: whether the values of a pass with gradients take at most 512 MiB on a processor, or those of one
            example. Not for criteria that may square the gradients of minibatches. On other devices small microbatches
            would leave most of the device idle.
        joins: whether neighbouring batches may be joined; not for criteria whose minibatches are those of the data.
    """
    device = device or network.device
    is_limited = fits_memory and device.type == "cpu"
    limit = min(examples_within(network.program, MICROBATCH_BYTES), MICROBATCH) if is_limited else MICROBATCH
    examples = as_examples(network, batches)
    if joins and examples_within(network.program, JOINED_BYTES) >= limit:
        examples = regrouped_batches(examples, limit)
    return split_microbatches(examples, device, limit)


def as_examples(network: Network, batches: Sequence[Batch]) -> list[Batch]:
    """Mark batches by the network: whole, or one example if the first axis is not the batch; with scores of tokens."""
    is_one, is_fixed = network.example.is_one_example, network.program.batched is None
    has_scores = has_token_scores(network.program)
    return [replace(batch, is_one_example=is_one, is_whole=is_fixed, has_token_scores=has_scores) for batch in batches]


def as_fast_layout(tensor: Tensor) -> Tensor:
    """Return images in the memory layout in which convolutions on a CPU are fastest."""
    is_image = tensor.dim() == 4 and tensor.is_floating_point() and tensor.device.type == "cpu"
    return tensor.contiguous(memory_format=torch.channels_last) if is_image else tensor
