"""The groups of a network as one HTML page."""

from secateur.allocation.reachable import reachable_rows
from secateur.coupling.network import Network
from secateur.coupling.summary import example_text, frozen_rows, share
from secateur.report.network_map import network_map
from secateur.report.pages import KeyFigure, render_page, short_count
from secateur.utils.plurals import number_of


def network_page(network: Network) -> str:
    """Return a self-contained page: groups over layers, their costs, frozen layers, and budgets within reach.

    Examples:
        >>> import torch, secateur as sc
        >>> from secateur.report.network_page import network_page
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> "<svg" in network_page(sc.trace(model, torch.randn(2, 4)))
        True
    """
    reachable = reachable_rows(network) if network.groups else []
    return render_page(
        "network.html",
        network=network,
        inputs=example_text(network),
        key_figures=_key_figures(network),
        rows=_network_cost_rows(network),
        map=network_map(network),
        frozen=[(name.strip(), *row) for name, *row in frozen_rows(network)],
        reachable=reachable,
        steps=bool(reachable) and "MACs in" in reachable[0][-1],
    )


def _key_figures(network: Network) -> list[KeyFigure]:
    cost = network.cost()
    return [
        KeyFigure("Parameters", short_count(cost.params), f"{cost.params:,}"),
        KeyFigure("MACs", short_count(cost.macs), f"{cost.macs:,}"),
        KeyFigure("Units", f"{network.units:,}", f"in {number_of(len(network.groups), 'group')} that can be cut"),
        KeyFigure("Frozen layers", f"{len(network.frozen):,}", "which stay as they are"),
    ]


def _network_cost_rows(network: Network) -> list[tuple[str, ...]]:
    """Return a row for each group: its kind and size, its parameters and MACs, and their fractions of the network's."""
    cost = network.cost()
    rows: list[tuple[str, ...]] = []
    for group in network.groups:
        params, macs = share(network, group)
        fractions = [
            f"{removed / max(dense_total, 1):.1%}"
            for removed, dense_total in ((params, cost.params), (macs, cost.macs))
        ]
        rows.append((group.name, group.kind, f"{group.size:,}", f"{params:,}", fractions[0], f"{macs:,}", fractions[1]))
    return rows
