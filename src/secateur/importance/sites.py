"""Sites: where a unit's activation is read, after batch norm and nonlinearity."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.network.masked import operand, recorded_operand
from secateur.network.program import Call, Handler, Program, arguments, with_argument
from secateur.network.units import Group, Network, Reader


@dataclass(frozen=True, eq=False)
class Site:
    """A tensor that readers read units from.

    Args:
        readers: those who read it.
        dim: the units' axis.
        units: for each index along it the number of its unit, -1 where it is frozen.
        batch_axis: the axis along which the examples lie.
    """

    readers: tuple[Reader, ...]
    dim: int
    units: Tensor
    batch_axis: int

    def rows(self, values: Tensor, examples: int) -> Tensor:
        """Means over everything but the units' axis and the examples. (size, examples)"""
        moved = values.movedim((self.dim, self.batch_axis), (0, 1))
        return moved.reshape(moved.shape[0], examples, -1).mean(2, dtype=torch.float64).cpu()

    def places(self, values: Tensor, examples: int) -> int:
        """Over how many entries `rows` takes each mean."""
        return values.numel() // (values.shape[self.dim] * examples)


Tap = Callable[[Site, Tensor], Tensor]


def sites_of(network: Network, groups: Sequence[Group]) -> tuple[Site, ...]:
    """The distinct tensors from which readers read units of these groups."""
    found: defaultdict[tuple[Node, int], list[Reader]] = defaultdict(list)
    for reader in network.readers:
        if any(group.owns(reader.units) for group in groups):
            found[arguments(reader.node)[reader.argument], reader.dim].append(reader)
    return tuple(_site(network.program, readers) for readers in found.values())


def _site(program: Program, readers: Sequence[Reader]) -> Site:
    axis = program.batch_axis(recorded_operand(readers[0]))
    return Site(tuple(readers), readers[0].dim, readers[0].units, 0 if axis is None else axis)


def tapped(sites: Iterable[Site], tap: Tap) -> dict[Node, Handler]:
    """Handlers that pass each site's tensor through `tap`, once for all its readers."""
    made: dict[Site, Tensor] = {}
    return {reader.node: partial(_read_tapped, reader, site, tap, made) for site in sites for reader in site.readers}


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


def by_group(
    network: Network, groups: Sequence[Group], rows: Iterable[tuple[Site, Tensor]], examples: int
) -> dict[str, Tensor]:
    """Rows of all sites summed into units. (units, examples) by group."""
    total = torch.zeros(network.units + 1, examples, dtype=torch.float64)
    for site, values in rows:
        total.index_add_(0, site.units % (network.units + 1), values)
    return {group.name: total[group.span] for group in groups}
