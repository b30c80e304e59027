"""Groups of `obs` in batches, whose layers are measured in one pass over the examples.

A batch holds the covariance and the curvature of every consumer of its groups. By default these alone are limited. With
a limit of the user's own, whole passes are measured: then a batch is split into the largest batches that keep the
limit. Each of them draws the same random numbers as the whole, so the scores are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from secateur.coupling.group import Group
from secateur.importance.context import CriterionContext
from secateur.importance.drawn_loss import DrawnLosses
from secateur.importance.elimination import BLOCK
from secateur.importance.fisher import fisher_accumulators
from secateur.importance.fisher_pass import accumulate
from secateur.importance.shapley.memory import DEFAULT_BYTES, SLACK, MemoryLimit
from secateur.masking import row_products
from secateur.masking.linear_layers import LinearLayer
from secateur.utils.live_bytes import peak_bytes
from secateur.utils.rng import generator_for
from secateur.utils.symmetric_matrices import COLUMNS

LinearConsumers = Mapping[str, Sequence[LinearLayer]]


@dataclass(frozen=True)
class GroupBatch:
    """Groups whose layers are measured together.

    Args:
        groups: the groups.
        drawn: the layers that take part in the draws, those of the groups among them.
    """

    groups: tuple[Group, ...]
    drawn: tuple[LinearLayer, ...]


def group_batches(
    context: CriterionContext, limit: MemoryLimit, groups: Sequence[Group], consumers: LinearConsumers
) -> list[GroupBatch]:
    """Divide groups into batches, in their order.

    Args:
        context: the network and the examples.
        limit: the limit of memory.
        groups: the groups that have linear consumers.
        consumers: the linear consumers of each group.

    Raises:
        BudgetError: a pass for one group alone needs more than the limit.
    """
    default_batches = _batches_by_covariances(groups, consumers)
    if limit.requested is None:
        return default_batches
    memory = int(SLACK * limit.bytes)
    batches, required_bytes = list[GroupBatch](), 0
    for batch in default_batches:
        if _bytes_of_pass(context, batch, consumers) <= memory:
            batches.append(batch)
            continue
        smaller_batches, largest_group = _split(context, batch, consumers, memory)
        batches, required_bytes = [*batches, *smaller_batches], max(required_bytes, largest_group)
    limit.check_bytes("rank by 'obs'", required_bytes)
    return batches


def layers_of_groups(groups: Sequence[Group], consumers: LinearConsumers) -> tuple[LinearLayer, ...]:
    """Return the linear consumers of any of these groups."""
    return tuple(dict.fromkeys(layer for group in groups for layer in consumers[group.name]))


def _batches_by_covariances(groups: Sequence[Group], consumers: LinearConsumers) -> list[GroupBatch]:
    """Return batches whose consumers' covariances take no more than the default limit."""
    lists: list[list[Group]] = []
    for group in groups:
        layers = layers_of_groups([*lists[-1], group] if lists else [group], consumers)
        if not lists or sum(map(_covariance_bytes, layers)) > DEFAULT_BYTES:
            lists.append([])
        lists[-1].append(group)
    return [GroupBatch(tuple(members), layers_of_groups(members, consumers)) for members in lists]


def _split(
    context: CriterionContext, batch: GroupBatch, consumers: LinearConsumers, memory: int
) -> tuple[list[GroupBatch], int]:
    """Return the largest batches within a batch that keep the limit, and the bytes of the largest group alone."""
    batches, required_bytes = list[GroupBatch](), 0
    for group in batch.groups:
        if batches:
            larger = GroupBatch((*batches[-1].groups, group), batch.drawn)
            if _bytes_of_pass(context, larger, consumers) <= memory:
                batches[-1] = larger
                continue
        single_group = GroupBatch((group,), batch.drawn)
        required_bytes = max(required_bytes, _bytes_of_pass(context, single_group, consumers))
        batches.append(single_group)
    return batches, required_bytes


def _bytes_of_pass(context: CriterionContext, batch: GroupBatch, consumers: LinearConsumers) -> int:
    """Return the bytes of a pass on the largest microbatch, or of the elimination afterwards."""
    microbatch = max(context.microbatches, key=lambda batch: sum(tensor.numel() for tensor in batch.tensors))
    layers = layers_of_groups(batch.groups, consumers)
    sums = fisher_accumulators(context.network.program.state, layers)
    losses = DrawnLosses(generator_for(context.seed, "curvature"))
    add_microbatch = partial(accumulate, context, microbatch, sums, batch.drawn, context.example_count, losses)
    pass_bytes = peak_bytes(add_microbatch)
    share = context.example_count / (microbatch.size or 1)
    rows = {layer: round(sums[layer].rows * share) for layer in layers}
    sizes = {layer: _moments_bytes(layer, rows[layer]) for layer in layers}
    elimination = max(
        sum(_elimination_bytes(layer, rows[layer]) for layer in consumers[group.name]) for group in batch.groups
    )
    return max(pass_bytes + max(sizes.values()), sum(sizes.values()) + elimination)


def _are_rows_kept(layer: LinearLayer, rows: int) -> bool:
    return bool(row_products.FEATURES_PER_ROW * rows <= layer.features_of_group + 1)


def _moments_bytes(layer: LinearLayer, rows: int) -> int:
    """Return the bytes of the covariances and curvatures of a layer, or of its rows where they are few."""
    if not _are_rows_kept(layer, rows):
        return 2 * _covariance_bytes(layer)
    outputs = min(len(layer.outputs) // layer.groups, layer.features_of_group)
    return int(layer.groups * (2 * rows * layer.features_of_group + outputs**2) * 8)


def _covariance_bytes(layer: LinearLayer) -> int:
    """Return the bytes of the covariances of a layer."""
    return int(layer.groups * layer.features_of_group**2 * 8)


def _elimination_bytes(layer: LinearLayer, rows: int) -> int:
    """Return the bytes of a layer in the elimination, beside its covariance and curvature."""
    if _are_rows_kept(layer, rows):
        outputs = min(len(layer.outputs) // layer.groups, layer.features_of_group)
        return int(layer.groups * (3 * rows + 4 * outputs) * layer.features_of_group * 8)
    features = layer.features_of_group
    changes = features * min(features, BLOCK)  # old and new while changes are concatenated
    outputs = min(len(layer.outputs) // layer.groups, features)
    blocks = 3 * min(features, COLUMNS)  # of the inverse while removed features are dropped
    return int(layer.groups * 8 * (2 * features**2 + blocks * features + 3 * changes + 3 * outputs * features))
