"""torch-pruning with its criteria on the inner convolutions of blocks, and distillation of what it cut."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from distillation import Distillation
from torch import Tensor, nn

from published.cifar import blocks_of
from published.peers import with_batch_norm_anew

DISTILLATION = Distillation(temperature=4)


def torch_pruning_cut(dense: nn.Module, share: float, batches: Sequence[Tensor], criterion: str) -> nn.Module:
    """Cut the same fraction of the inner channels of every block with torch-pruning.

    Args:
        dense: the dense network.
        share: the fraction of inner channels to remove.
        batches: images without labels.
        criterion: "l2", "bn" (the scales of batch norms) or "taylor". Gradients of "taylor" are those of the
            cross-entropy with the classes that the dense network predicts, because there are no labels.
    """
    import torch_pruning as tp  # noqa: PLC0415 (only these methods need it)

    importances = {
        "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "bn": tp.importance.BNScaleImportance,
        "taylor": tp.importance.GroupTaylorImportance,
    }
    model = copy.deepcopy(dense).eval()
    inner = [block.conv1 for block in blocks_of(model).values()]
    others = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m not in inner]
    pruner = tp.pruner.MetaPruner(
        model,
        batches[0][:1],
        importances[criterion](),
        pruning_ratio=share,
        ignored_layers=others,
        root_module_types=[nn.Conv2d],
    )
    if criterion == "taylor":
        _accumulate_gradients(model, batches)
    pruner.step()
    model.zero_grad()
    return model


def _accumulate_gradients(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Sum the gradients of the cross-entropy with the predicted classes over all images."""
    for batch in batches:
        outputs = model(batch)
        F.cross_entropy(outputs, outputs.detach().argmax(1), reduction="sum").backward()


def distilled(
    small: nn.Module,
    dense: nn.Module,
    batches: Sequence[Tensor],
    seed: int,
    distillation: Distillation = DISTILLATION,
) -> nn.Module:
    """Return a copy that is trained towards the dense network's outputs, with flipped and shifted images.

    Args:
        small: the network to train; it is not changed.
        dense: the dense network.
        batches: images without labels.
        seed: the seed of the images and their changes.
        distillation: the settings of the training.
    """
    student, draws = with_batch_norm_anew(small, batches), torch.Generator().manual_seed(seed)
    images = torch.cat(list(batches))
    return distillation.train(student, dense, images, lambda batch: _flipped_and_shifted(batch, draws), draws)


def _flipped_and_shifted(images: Tensor, draws: torch.Generator) -> Tensor:
    """Return images of which half are flipped, all shifted by up to an eighth of their sides."""
    flips = torch.rand(len(images), generator=draws) < 0.5
    images = torch.where(flips[:, None, None, None], images.flip(3), images)
    height, width = images.shape[2] // 8, images.shape[3] // 8
    down = int(torch.randint(-height, height + 1, (), generator=draws))
    right = int(torch.randint(-width, width + 1, (), generator=draws))
    padded = F.pad(images, (width, width, height, height), mode="reflect")
    return padded[:, :, height + down : height + down + images.shape[2], width + right :][..., : images.shape[3]]
