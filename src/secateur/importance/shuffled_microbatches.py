"""Examples shuffled into new microbatches, for estimates from parts of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from secateur.data.batch import Batch, concat_batches
from secateur.data.regrouping import example_form
from secateur.importance.context import MICROBATCH, as_fast_layout


def shuffled_microbatches(microbatches: Sequence[Batch], generator: torch.Generator) -> list[tuple[Batch, Tensor]]:
    """Shuffle the examples into new microbatches, each with the old numbers of its examples.

    Neighbours in the data may be alike, microbatches should not be. Only examples of one shape can share a
    microbatch, and what is not divisible stays as it is.
    """
    starts = torch.tensor([0, *(batch.size or 1 for batch in microbatches)]).cumsum(0)
    by_form: dict[str | int, list[tuple[Batch, Tensor]]] = {}
    for number, batch in enumerate(microbatches):
        form = example_form(batch) or number
        by_form.setdefault(form, []).append((batch, torch.arange(int(starts[number]), int(starts[number + 1]))))
    new_microbatches = []
    for form, members in by_form.items():
        numbers = torch.cat([indices for _, indices in members])
        if isinstance(form, int):
            new_microbatches.append((members[0][0], numbers))
            continue
        joined_batch = concat_batches([batch for batch, _ in members])
        order = torch.randperm(len(numbers), generator=generator)
        new_microbatches += [
            (joined_batch.take(index).map(as_fast_layout), numbers[index]) for index in order.split(MICROBATCH)
        ]
    return new_microbatches
