"""APoZ (Hu et al. 2016): how often a unit's activation is above zero."""

import torch
from torch import Tensor

from secateur.data import Batch
from secateur.importance.evidence import Evidence
from secateur.importance.registry import criterion
from secateur.importance.sites import Site, by_group, sites_of, tapped


@criterion("apoz")
def apoz(evidence: Evidence) -> dict[str, Tensor]:
    """The fraction of positions at which the unit's activation, where it is read, is above zero (1 - APoZ)."""
    evidence.need_examples("apoz")
    sites = sites_of(evidence)
    ones = torch.ones(1, 1, dtype=torch.float64)
    counts = by_group(evidence.network, evidence.groups, ((site, ones.expand(len(site.units), 1)) for site in sites), 1)
    found = [_active(evidence, sites, cell) for cell in evidence.watched(evidence.cells, "apoz")]
    return {name: torch.cat([part[name] for part in found], 1) / counts[name].clamp_min(1) for name in counts}


def _active(evidence: Evidence, sites: tuple[Site, ...], cell: Batch) -> dict[str, Tensor]:
    seen: list[tuple[Site, Tensor]] = []

    def look(site: Site, x: Tensor) -> Tensor:
        seen.append((site, site.rows(x > 0, cell.size or 1)))
        return x

    with torch.no_grad():
        evidence.forward(cell, tapped(sites, look))
    return by_group(evidence.network, evidence.groups, seen, cell.size or 1)
