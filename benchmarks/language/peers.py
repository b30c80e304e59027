"""Published methods as their papers describe them, written by the authors of Secateur: none is the original code.

Each is a ranking of units, the allocation that its paper uses, and the replacement of removed units. The scores of
units in a group are sums over the entries of weights or inputs that belong to the unit.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from language.subject import LanguageSubject
from secateur.coupling.group import Group
from secateur.coupling.network import Network
from secateur.importance.context import CriterionContext
from secateur.masking.linear_layers import LinearLayer, layers_of

GRADIENT_SEQUENCES = 10
FIRST_KEPT, LAST_KEPT = 4, 2  # blocks that LLM-Pruner leaves whole
Scorer = Callable[[CriterionContext], dict[str, Tensor]]
InputStatistic = Callable[[Tensor, Tensor, Tensor], Tensor]


def wanda(subject: LanguageSubject) -> Scorer:
    """Wanda-sp (An et al. 2024, after Sun et al. 2024): weights times the norms of their inputs."""
    return partial(_by_inputs, subject, lambda weight, mean, square: weight.abs().sum(0) * square.sqrt())


def flap(subject: LanguageSubject) -> Scorer:
    """FLAP (An et al. 2024): the variance of inputs times the squares of weights, standardised layer by layer."""

    def score(context: CriterionContext) -> dict[str, Tensor]:
        scores = _by_inputs(subject, lambda weight, mean, square: weight.square().sum(0) * (square - mean**2), context)
        return {name: (values - values.mean()) / values.std() for name, values in scores.items()}

    return score


def magnitude(subject: LanguageSubject) -> Scorer:
    """The sum of the squares of all weights of a unit."""

    def score(context: CriterionContext) -> dict[str, Tensor]:
        return _by_weights(context.network, lambda name: context.network.program.state(name).detach().square())

    return score


def llm_pruner(subject: LanguageSubject) -> Scorer:
    """LLM-Pruner (Ma et al. 2023): weights times gradients of the loss of ten sequences, the first order alone."""

    def score(context: CriterionContext) -> dict[str, Tensor]:
        tokens = subject.tokens[:GRADIENT_SEQUENCES]
        named = dict(subject.model.named_parameters())
        with torch.enable_grad():
            scores = subject.model(input_ids=tokens, use_cache=False).logits[:, :-1].float()
            loss = F.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())
            gradients = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
        return _by_weights(context.network, lambda name: (named[name].detach() * gradients[name]).abs())

    return score


def whole_blocks(subject: LanguageSubject) -> list[str]:
    """Patterns of the blocks that LLM-Pruner leaves whole: the first four and the last two."""
    count = len(subject.model.model.layers)
    kept = [*range(FIRST_KEPT), *range(count - LAST_KEPT, count)]
    return [f"model.layers.{number}.*" for number in kept]


def short_gpt(subject: LanguageSubject) -> Scorer:
    """ShortGPT (Men et al. 2024): one minus the cosine similarity of a block's input and output."""

    def score(context: CriterionContext) -> dict[str, Tensor]:
        (group,) = context.groups
        totals = dict.fromkeys(group.block_paths, 0.0)

        def compare(path: str, module: nn.Module, args: tuple[Tensor, ...], output: Tensor | tuple[Tensor]) -> None:
            after = output if isinstance(output, Tensor) else output[0]
            totals[path] += float((1 - F.cosine_similarity(args[0], after, dim=-1)).sum())

        handles = [subject.model.get_submodule(path).register_forward_hook(partial(compare, path)) for path in totals]
        _run_with_hooks(subject, handles)
        return {group.name: torch.tensor([totals[path] for path in group.block_paths])}

    return score


def _by_weights(network: Network, entries: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """The sum over all entries of parameters that belong to a unit, by group. (units,) each"""
    scores = {}
    for group in network.groups:
        total = torch.zeros(group.size, dtype=torch.float64)
        for member in group.members:
            values = entries(member.tensor)
            by_index = values.sum([axis for axis in range(values.dim()) if axis != member.axis])
            total += _by_unit(group, member.units, by_index.cpu())
        scores[group.name] = total
    return scores


def _by_inputs(subject: LanguageSubject, statistic: InputStatistic, context: CriterionContext) -> dict[str, Tensor]:
    """A statistic of the inputs of the layer that reads a group's units, summed over each unit. (units,) each"""
    readers = dict(_readers(context.network))
    sums: dict[str, list[Tensor]] = {}

    def add(name: str, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        rows = args[0].flatten(0, -2).double()
        new = [rows.new_tensor(len(rows)), rows.sum(0), rows.square().sum(0)]
        sums[name] = [a + b for a, b in zip(sums[name], new, strict=True)] if name in sums else new

    names = [layer.name for layer in readers.values()]
    _run_with_hooks(
        subject, [subject.model.get_submodule(name).register_forward_hook(partial(add, name)) for name in names]
    )
    scores = {}
    for name, layer in readers.items():
        count, total, squares = sums[layer.name]
        weight = context.network.program.state(layer.weight).detach().double()
        values = statistic(weight, total / count, squares / count).cpu()
        scores[name] = _by_unit(context.network[name], layer.inputs, values)
    return scores


def _readers(network: Network) -> Iterator[tuple[str, LinearLayer]]:
    """Yield each group's name with the linear layer that reads its units."""
    layers = layers_of(network)
    for group in network.groups:
        yield group.name, next(layer for layer in layers if group.owns(layer.inputs))


def _by_unit(group: Group, units: Tensor, values: Tensor) -> Tensor:
    at = units - group.offset
    inside = (at >= 0) & (at < group.size)
    return torch.zeros(group.size, dtype=torch.float64).index_add(0, at[inside], values.double()[inside])


@torch.no_grad()
def _run_with_hooks(subject: LanguageSubject, handles: list[torch.utils.hooks.RemovableHandle]) -> None:
    """Run the model on the calibration sequences, and remove the hooks."""
    for batch in subject.data:
        subject.model(**batch, use_cache=False)
    for handle in handles:
        handle.remove()
