"""The network that computes the larger of two numbers: exact values of its four units (after Ancona et al. 2020).

The function is that of the paper's toy example. The weights and the four examples differ from the paper's, so that
all values can be computed by hand: the released notebook has .25 and 2 in place of .5 and 1 for the first unit, and
random examples. Shapley values are computed by `estimator="exact"` over all coalitions, and are the mean over the
examples. The criteria `sensitivity` and `taylor`, which use gradients, are zero for every unit, as the paper states.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import secateur as sc
from papers.settings import Row, Settings

EXAMPLES = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 2.0], [2.0, 1.0]])
INNER = torch.tensor([[-0.5, 1, 1, 1], [0.5, -1, 1, 1]])
BY_HAND = {
    (1, 0.5, 0.5, 0): [0.375, 0.375, 1.75, 0],
    (1, 0.5, 0.5, -0.1): [0.425, 0.425, 2.0, -0.4],
}
OTHERS = {"sensitivity": [0, 0, 0, 0], "taylor": [0, 0, 0, 0], "l1": [1, 2, 2, 2], "apoz": [0.5, 0.5, 1, 1]}


class Largest(nn.Module):
    """max(a, b) of two numbers that are not negative."""

    def __init__(self, outer: tuple[float, ...]) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(2, 4, bias=False), nn.Linear(4, 1, bias=False)
        self.hidden.weight.data = INNER.T.contiguous()
        self.out.weight.data = torch.tensor([outer]).float()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(x)))


def maximum_rows(settings: Settings) -> Iterator[Row]:
    """Yield each criterion's values, as computed and by hand."""
    data = [(EXAMPLES, EXAMPLES.amax(1, keepdim=True))]
    for outer, expected in BY_HAND.items():
        network = sc.trace(Largest(outer).eval(), EXAMPLES)
        scores = sc.score(network, data, estimator="exact", ablation="zero", aggregate="mean", progress=False)
        yield {"outer": list(outer), "by": "shapley", "found": scores["hidden"].values.tolist(), "expected": expected}
    network = sc.trace(Largest((1, 0.5, 0.5, 0)).eval(), EXAMPLES)
    for by, expected in OTHERS.items():
        scores = sc.score(network, data, by=by, progress=False)
        values = [round(value, 6) for value in scores["hidden"].values.tolist()]
        yield {"outer": [1, 0.5, 0.5, 0], "by": by, "found": values, "expected": expected}


def maximum_tables(rows: list[Row]) -> list[str]:
    """Return the lines of the table."""
    lines = ["| weights out | criterion | values | by hand |", "|---|---|---|---|"]
    shown = ("outer", "by", "found", "expected")
    return [*lines, *("| " + " | ".join(_values_text(row[name]) for name in shown) + " |" for row in rows)]


def _values_text(value: object) -> str:
    return ", ".join(f"{number:.4g}" for number in value) if isinstance(value, list) else str(value)
