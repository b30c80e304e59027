"""A cut copy of a model, with the constants of removed units in its biases; not yet verified."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secateur.coupling.network import Kept, Network
from secateur.coupling.residual_blocks import is_inside
from secateur.graph.model_copies import copy_sharing_parameters, stop_sharing_parameters
from secateur.graph.remembered_state import empty_caches
from secateur.masking.ablation import Means, consumer_key
from secateur.masking.constants import constant_response
from secateur.surgery.apply_recipe import apply_recipe, pack_recurrent_weights
from secateur.surgery.recipe import Recipe, make_recipe


def cut_copy(model: nn.Module, network: Network, kept: Kept, means: Means) -> tuple[nn.Module, Recipe]:
    """Return a cut copy of a model, not yet verified, and its recipe."""
    recipe = make_recipe(model, network, kept, folds=bool(means))
    responses = removed_constants(model, network, kept, means)
    small = copy_sharing_parameters(model)  # what is cut is never held whole a second time
    empty_caches(small, network.program.caches)
    apply_recipe(small, recipe)
    stop_sharing_parameters(small, model)
    fold_constants(
        small, {recipe.renamed(name): value for name, value in responses.items() if not is_inside(name, recipe.skipped)}
    )
    pack_recurrent_weights(small)
    return small, recipe


def removed_constants(model: nn.Module, network: Network, kept: Kept, means: Means) -> dict[str, tuple[str, Tensor]]:
    """Compute each consumer's response to the means of removed units, by the tensor to which it is added."""
    if not means:
        return {}
    mask = network.mask(kept)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    responses: dict[str, tuple[str, Tensor]] = {}
    for consumer in network.consumers:
        mean = means.get(consumer_key(consumer))
        present = mask[consumer.units]
        if consumer.fold is None or mean is None or bool(present.all()):
            continue
        absent = torch.where(present, torch.zeros((), dtype=mean.dtype), mean.cpu())
        response = constant_response(parameters[consumer.fold.weight].detach(), consumer.fold, absent[None])[0]
        responses[consumer.fold.tensor] = (consumer.fold.kind, response[mask[consumer.fold.outputs]])
    return responses


def fold_constants(small: nn.Module, constants: Mapping[str, tuple[str, Tensor]]) -> None:
    """Add the constants to the biases and running means of a cut model, which get new memory."""
    if not constants:
        return
    tensors = {
        **dict(small.named_parameters(remove_duplicate=False)),
        **dict(small.named_buffers(remove_duplicate=False)),
    }
    for name, (kind, constant) in constants.items():
        target = tensors[name].data
        change = constant.to(target.device)
        tensors[name].data = (target.double() + (-change if kind == "running_mean" else change)).to(target.dtype)
