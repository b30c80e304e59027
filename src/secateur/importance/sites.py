"""Sites: where a unit's activation is read, after batch norm and nonlinearity."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.data import Batch
from secateur.errors import DataError
from secateur.importance.evidence import Evidence
from secateur.network.labels import operator_name
from secateur.network.masked import chained, operand, operand_node, recorded_operand
from secateur.network.program import Call, Handler, Program, module_path, widest, with_argument
from secateur.network.units import Group, Network, Reader


@dataclass(frozen=True, eq=False)
class Site:
    """A tensor that readers read units from.

    Args:
        readers: those who read it.
        dim: the units' axis.
        units: for each index along it the number of its unit, -1 where it is frozen.
        batch_axis: the axis along which the examples lie.
        outermost: whether, where that axis holds other things too, those of one example lie side by side.
    """

    readers: tuple[Reader, ...]
    dim: int
    units: Tensor
    batch_axis: int
    outermost: bool

    def rows(self, values: Tensor, examples: int) -> Tensor:
        """Means over everything but the units' axis and the examples. (size, examples)"""
        if examples == 1:
            alone = values.movedim(self.dim, 0).reshape(values.shape[self.dim], 1, -1)
            return alone.mean(2, dtype=widest(values)).cpu().double()
        moved = values.movedim((self.dim, self.batch_axis), (0, 1))
        if not self.outermost:  # (size, parts, examples, ...)
            moved = moved.unflatten(1, (-1, examples)).transpose(1, 2)
        return moved.reshape(moved.shape[0], examples, -1).mean(2, dtype=widest(moved)).cpu().double()

    def places(self, values: Tensor, examples: int) -> int:
        """Over how many entries `rows` takes each mean."""
        return values.numel() // (values.shape[self.dim] * examples)


Tap = Callable[[Site, Tensor], Tensor]


def sites_of(evidence: Evidence) -> tuple[Site, ...]:
    """The distinct tensors from which readers read units of the groups to score.

    Raises:
        DataError: the examples can't be told apart in one of them.
    """
    found: defaultdict[tuple[Node, int], list[Reader]] = defaultdict(list)
    of_weights = evidence.network.program.state_only
    for reader in evidence.network.readers:
        read = operand_node(reader)
        if (
            not reader.is_inner
            and read not in of_weights
            and any(group.owns(reader.units) for group in evidence.groups)
        ):
            found[read, reader.dim].append(reader)
    sites = tuple(_site(evidence.network.program, readers) for readers in found.values())
    return _laid_out(evidence, sites)


def _site(program: Program, readers: Sequence[Reader]) -> Site:
    axis = program.batch_axis(recorded_operand(readers[0]))
    return Site(tuple(readers), readers[0].dim, readers[0].units, 0 if axis is None else axis, outermost=True)


def _laid_out(evidence: Evidence, sites: tuple[Site, ...]) -> tuple[Site, ...]:
    """Where the batch shares its axis with something else, which of them lies outermost: seen by turning it round."""
    if all(_is_plain(evidence.network, site) for site in sites):
        return sites
    cell = max(evidence.cells, key=lambda each: each.size or 1)
    examples = cell.size or 1
    one, other = _seen(evidence, sites, cell), _seen(evidence, sites, cell.take(torch.arange(examples).flip(0)))
    placed = []
    for site in sites:
        for outermost in (True, False):
            tried = replace(site, outermost=outermost)
            a, b = (tried.rows(seen[site], examples) for seen in (one, other))
            if torch.allclose(a, b.flip(1), rtol=1e-3, atol=1e-5 * float(a.abs().max() + 1e-9)):
                placed.append(tried)
                break
        else:
            raise DataError(
                f"the examples of a batch can't be told apart in what {module_path(site.readers[0].node)} reads; this "
                "criterion needs that, rank by 'shapley' or 'leave-one-out'"
            )
    return tuple(placed)


def _is_plain(network: Network, site: Site) -> bool:
    """Whether a site's batch axis holds the examples and nothing else."""
    length = recorded_operand(site.readers[0]).shape[site.batch_axis]
    return str(length) == network.program.batched or length == network.example.size


def _seen(evidence: Evidence, sites: tuple[Site, ...], cell: Batch) -> dict[Site, Tensor]:
    seen: dict[Site, Tensor] = {}

    def look(site: Site, x: Tensor) -> Tensor:
        seen[site] = x
        return x

    with torch.no_grad():
        evidence.forward(cell, tapped(sites, look))
    return seen


def tapped(sites: Iterable[Site], tap: Tap) -> dict[Node, Handler]:
    """Handlers that pass each site's tensor through `tap`, once for all its readers."""
    made: dict[Site, Tensor] = {}
    by_node: defaultdict[Node, list[Handler]] = defaultdict(list)
    for site in sites:
        for reader in site.readers:
            by_node[reader.node].append(partial(_read_tapped, reader, site, tap, made))
    return {node: chained(handlers) for node, handlers in by_node.items()}


def _read_tapped(
    reader: Reader,
    site: Site,
    tap: Tap,
    made: dict[Site, Tensor],
    target: Call,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if site not in made:
        made[site] = tap(site, operand(reader, args, kwargs))
    args, kwargs = with_argument(reader.node, args, kwargs, reader.argument, made[site])
    return target(*args, **kwargs)


PASSED: dict[str, Handler] = {
    "detach": lambda target, args, kwargs: args[0],
    "copy": lambda target, args, kwargs: args[1].to(args[0]).expand_as(args[0]),
}


def differentiable(program: Program) -> dict[Node, Handler]:
    """A detached or copied activation is worth as much as another: gradients pass."""
    return {node: PASSED[name] for node in program.nodes if (name := operator_name(node)) in PASSED}


def by_group(
    network: Network, groups: Sequence[Group], rows: Iterable[tuple[Site, Tensor]], examples: int
) -> dict[str, Tensor]:
    """Rows of all sites summed into units. (units, examples) by group."""
    total = torch.zeros(network.units + 1, examples, dtype=torch.float64)
    for site, values in rows:
        total.index_add_(0, site.units % (network.units + 1), values)
    return {group.name: total[group.span] for group in groups}
