"""Mirror images of the examples, for networks that answer them as they answer the images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.evaluation.divergence import divergence
from secateur.evaluation.holdout import spread_microbatches
from secateur.graph.contexts import isolated_evaluation, run_seeded
from secateur.recovery.image_augmentation import EXAMPLES, FEWEST, INVARIANT, are_images


def answers_mirrored_images(
    dense: nn.Module, microbatches: Sequence[Batch], temperature: float, writes: bool = True
) -> bool:
    """Return whether the dense network's outputs for images flipped from left to right are as likely right as others.

    They are if they differ from the outputs for the images by less than a tenth of the difference between the outputs
    for different images. Outputs of four dimensions have a place for each pixel, and are flipped back first.

    Args:
        dense: the dense network.
        microbatches: the examples; where these are no images, the answer is no.
        temperature: at which class scores are compared.
        writes: whether the network's code may write to its parameters.
    """
    sample = spread_microbatches(microbatches, EXAMPLES) if are_images(microbatches) else []
    if sum(microbatch.size or 1 for microbatch in sample) < FEWEST:
        return False
    changes, differences, last_single = list[Tensor](), list[Tensor](), None
    with isolated_evaluation(dense, writes):
        for microbatch in sample:  # one at a time, as large images need
            output = run_seeded(dense, microbatch.without_target())
            restored_output = _flipped_back(run_seeded(dense, mirrored(microbatch)))
            changes.append(divergence(restored_output, output, temperature=temperature))
            is_single = microbatch.size == 1
            other_output = last_single if is_single else _rolled(output)
            last_single = output if is_single else None
            if other_output is not None:
                differences.append(divergence(other_output, output, temperature=temperature))
    return bool(differences) and bool(torch.cat(changes).mean() < INVARIANT * torch.cat(differences).mean())


def _flipped_back(output: object) -> object:
    """Return the outputs for mirror images in the places of the images' pixels."""
    return pytree.tree_map(lambda leaf: leaf.flip(3) if isinstance(leaf, Tensor) and leaf.dim() == 4 else leaf, output)


def _rolled(output: object) -> object:
    """Return the outputs with that of another example in each place."""
    return pytree.tree_map(lambda leaf: leaf.roll(1, 0) if isinstance(leaf, Tensor) and leaf.dim() else leaf, output)


def mirrored(batch: Batch) -> Batch:
    """Return a batch of images flipped from left to right, without targets."""
    return batch.without_target().map(lambda tensor: tensor.flip(3))
