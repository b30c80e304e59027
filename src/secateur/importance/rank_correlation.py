"""Agreement of two rankings, group by group and over all groups together."""

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.errors import NameMatchError
from secateur.importance.scores import Scores

ALL = "all groups"


@dataclass(frozen=True)
class Agreement:
    """Correlations of two criteria's scores of the same units; NaN where one of them scores all units alike.

    Args:
        group: the name of the group, or "all groups" for all units of the network together.
        units: the number of units.
        pearson: the correlation of the scores.
        spearman: the correlation of their ranks.
        kendall: tau-b, the agreement of the order of each pair of units.
    """

    group: str
    units: int
    pearson: float
    spearman: float
    kendall: float


def agreements(scores: Scores, others: Scores) -> tuple[Agreement, ...]:
    """Return the correlations of two criteria for each group that both have scored, and over all of these together.

    Scores of different groups are comparable for criteria that estimate a change of the loss, such as "taylor-gates" or
    "oracle"; for others the last row says little.

    Raises:
        NameMatchError: they have no group in common.

    Examples:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> l1, l2 = (sc.score(network, by=by) for by in ("l1", "l2"))
        >>> [row.group for row in agreements(l1, l2)], agreements(l1, l1)[0].spearman > 0.999
        (['0', 'all groups'], True)
    """
    shared_names = [name for name in scores if name in others]
    if not shared_names:
        raise NameMatchError(f"{scores.by!r} and {others.by!r} have scored no group in common")
    pairs = {name: (scores[name].values, others[name].values) for name in shared_names}
    together = tuple(torch.cat([pair[side] for pair in pairs.values()]) for side in (0, 1))
    rows = [_agreement(name, *pair) for name, pair in pairs.items()]
    return (*rows, _agreement(ALL, *together))


def _agreement(group: str, a: Tensor, b: Tensor) -> Agreement:
    from scipy import stats

    if len(a) < 2 or bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return Agreement(group, len(a), float("nan"), float("nan"), float("nan"))

    one, other = a.numpy(), b.numpy()
    correlations = (float(f(one, other).statistic) for f in (stats.pearsonr, stats.spearmanr, stats.kendalltau))
    return Agreement(group, len(a), *correlations)
