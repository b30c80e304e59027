"""Groups of `obs` in portions, whose layers are looked at in one pass over the examples.

A portion holds the covariance and the curvature of every layer that reads its groups. By default these alone are
limited. With a limit of the user's own, whole passes are measured: then a portion is split into the largest parts that
keep the limit. A part draws all that its portion draws, so the scores are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from secateur.coupling.network import Group
from secateur.importance.context import CriterionContext
from secateur.importance.elimination import BLOCK
from secateur.importance.fisher import FisherAccumulator, pass_cell
from secateur.importance.shapley.memory import DEFAULT_BYTES, SLACK, MemoryLimit
from secateur.masking.linear_layers import LinearLayer
from secateur.utils.live_bytes import peak_bytes
from secateur.utils.rng import generator_for

Readers = Mapping[str, Sequence[LinearLayer]]


@dataclass(frozen=True)
class Portion:
    """Groups whose layers are looked at together.

    Args:
        groups: the groups.
        drawn: the layers that take part in the draws, those of the groups among them.
    """

    groups: tuple[Group, ...]
    drawn: tuple[LinearLayer, ...]


def portions_of(
    context: CriterionContext, limit: MemoryLimit, groups: Sequence[Group], consumers: Readers
) -> list[Portion]:
    """The portions, in the order of the groups.

    Args:
        context: the network and the examples.
        limit: the limit of memory.
        groups: those that have readers.
        consumers: the layers that read each group.

    Raises:
        BudgetError: a pass for one group alone takes more than the limit.
    """
    whole = _by_covariances(groups, consumers)
    if limit.requested is None:
        return whole
    memory = int(SLACK * limit.bytes)
    parts, least = list[Portion](), 0
    for portion in whole:
        if _bytes_of(context, portion, consumers) <= memory:
            parts.append(portion)
            continue
        split, alone = _split(context, portion, consumers, memory)
        parts, least = [*parts, *split], max(least, alone)
    limit.check_bytes("rank by 'obs'", least)
    return parts


def layers_in(groups: Sequence[Group], consumers: Readers) -> tuple[LinearLayer, ...]:
    """The layers that read any of these groups."""
    return tuple(dict.fromkeys(layer for group in groups for layer in consumers[group.name]))


def _by_covariances(groups: Sequence[Group], consumers: Readers) -> list[Portion]:
    """Groups in portions whose readers' covariances take no more than the default limit."""
    lists: list[list[Group]] = []
    for group in groups:
        together = layers_in([*lists[-1], group] if lists else [group], consumers)
        if not lists or sum(map(_matrix_bytes, together)) > DEFAULT_BYTES:
            lists.append([])
        lists[-1].append(group)
    return [Portion(tuple(each), layers_in(each, consumers)) for each in lists]


def _split(context: CriterionContext, portion: Portion, consumers: Readers, memory: int) -> tuple[list[Portion], int]:
    """The largest parts of a portion that keep the limit, and what the largest of its groups takes alone."""
    parts, least = list[Portion](), 0
    for group in portion.groups:
        if parts:
            larger = Portion((*parts[-1].groups, group), portion.drawn)
            if _bytes_of(context, larger, consumers) <= memory:
                parts[-1] = larger
                continue
        alone = Portion((group,), portion.drawn)
        least = max(least, _bytes_of(context, alone, consumers))
        parts.append(alone)
    return parts, least


def _bytes_of(context: CriterionContext, portion: Portion, consumers: Readers) -> int:
    """What a pass takes on the largest cell, or the elimination afterwards."""
    cell = max(context.microbatches, key=lambda each: sum(tensor.numel() for tensor in each.tensors))
    layers = layers_in(portion.groups, consumers)
    sums = {layer: FisherAccumulator(layer, context.network.program.state(layer.weight).detach()) for layer in layers}
    draws = generator_for(context.seed, "curvature")
    examples = sum(each.size or 1 for each in context.microbatches)
    single = peak_bytes(partial(pass_cell, context, cell, sums, portion.drawn, examples, draws))
    sizes = {layer: _matrix_bytes(layer) for layer in layers}
    eliminated = max(sum(map(_elimination_bytes, consumers[group.name])) for group in portion.groups)
    solved = max(eliminated, SHRINKAGE * max(sizes.values()))
    return max(single + 2 * max(sizes.values()), 2 * sum(sizes.values()) + solved)


def _matrix_bytes(layer: LinearLayer) -> int:
    """What the covariances of a layer take."""
    return int(layer.groups * layer.features_of_group**2 * 8)


def _elimination_bytes(layer: LinearLayer) -> int:
    """What the elimination holds of a layer beside its covariance and curvature."""
    changes = layer.features_of_group * min(layer.features_of_group, BLOCK) * 8
    return layer.groups * (6 * layer.features_of_group**2 * 8 + 3 * changes)  # old and new while changes are joined


SHRINKAGE = 5  # matrices of a layer's features that shrinking its covariance takes
