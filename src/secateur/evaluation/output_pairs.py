"""The outputs of the dense network and of a smaller one for a batch, and their measures example by example."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from secateur.data.batch import Batch
from secateur.evaluation.class_hits import class_hits, top_classes
from secateur.evaluation.divergence import divergence, relative_errors
from secateur.evaluation.losses import Loss, Reference, by_example, example_losses
from secateur.evaluation.outputs import is_embedding, is_logits, main_output, with_named_scores
from secateur.evaluation.targets import has_real_targets


@dataclass(frozen=True, eq=False)
class OutputPair:
    """The outputs of the dense network and of a smaller one for a batch.

    Args:
        batch: the batch.
        dense: the dense network's output.
        small: the smaller network's output.
        scales: the mean squares of the dense network's outputs over all batches, as `output_scales` returns them; None
            for those of this batch.
    """

    batch: Batch
    dense: Any
    small: Any
    scales: Sequence[Tensor] | None = None

    @property
    def examples(self) -> int:
        """The number of examples in the batch."""
        return self.batch.size or 1

    def losses(self, output: Any, loss: Loss | None = None) -> Tensor:
        """Return the loss of each example, against the labels or the dense network's output, (examples,).

        Args:
            output: one of both outputs.
            loss: the user's own loss; None for cross entropy, squared error, or the divergence without labels.
        """
        reference = Reference(self.batch.target, self.dense, self.scales, self.batch.has_token_scores)
        return example_losses(loss, output, reference, self.examples).double().cpu()

    def comparable(self, output: Any) -> Any:
        """Return one of both outputs with the names by which class scores are known."""
        return with_named_scores(output, self.batch.has_token_scores)

    def accuracies(self, output: Any) -> Tensor:
        """Return the fraction of right top classes in each example, (examples,); NaN without class labels."""
        return class_hits(self.comparable(output), self.batch.target, self.examples)

    def agreements(self, output: Any) -> Tensor:
        """Return the fraction of the dense network's top classes in each example, NaN without classes, (examples,)."""
        dense = self.comparable(self.dense)
        has_classes = main_output(dense).dim() == 2 or is_logits(dense)
        has_classes = has_classes and not self._is_regression and not is_embedding(dense)
        return class_hits(self.comparable(output), top_classes(dense) if has_classes else None, self.examples)

    def divergences(self, output: Any, temperature: float = 1.0) -> Tensor:
        """Return the divergence of each example from the dense network's output, (examples,).

        Args:
            output: one of both outputs.
            temperature: by which class scores are divided.
        """
        if self._is_regression:
            errors = relative_errors(output, self.dense, self.scales or None)
        else:
            errors = divergence(self.comparable(output), self.comparable(self.dense), self.scales, temperature)
        return by_example(errors, self.examples).double().cpu()

    @property
    def _is_regression(self) -> bool:
        return has_real_targets(self.batch, self.dense)

    def measures(self, loss: Loss | None = None) -> Tensor:
        """Return all measures of both networks, (networks, measures, examples)."""
        rows = [
            torch.stack([self.losses(output, loss), self.accuracies(output), self.agreements(output),
                         self.divergences(output)])
            for output in (self.dense, self.small)
        ]  # fmt: skip
        return torch.stack(rows)
