"""Orders that a layer's rows and columns share: the weight that blocks hold, by the method of the search.

The layers map a stream of units to itself. Their weights are drawn from a normal distribution, and a quarter is kept in
blocks of 4 x 4. The search starts from the original order. The columns show the last state of the linearisation, its
best state, the best state improved by swaps on the true sum (as the search does it), and swaps alone.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rows import spread_text

from secateur.sparsity.pivoting.block_sums import Matrix
from secateur.sparsity.pivoting.order_steps import assigned_order
from secateur.sparsity.pivoting.search import PivotSearch, align_orders

Row = dict[str, object]
SIZES, SHAPE, DENSITY, STEPS = (32, 64), (4, 4), 0.25, 30
WAYS = ("as they lie", "linearisation, last", "linearisation, best", "best, then swaps", "swaps alone")


def order_rows(data: Path, seeds: tuple[int, ...], quick: bool) -> Iterator[Row]:
    """Yield the part of the weight that blocks hold, and the number of steps that lost weight."""
    del data
    for size in SIZES[:1] if quick else SIZES:
        for seed in range(2 if quick else 10):
            draws = np.random.default_rng(seed)
            matrix = Matrix("layer", np.abs(draws.normal(size=(size, size))), "stream", "stream")
            row = {"size": size, "seed": seed}
            search, start = PivotSearch([matrix], DENSITY, SHAPE), {"stream": np.arange(size)}
            yield row | {"way": WAYS[0], "held": align_orders([matrix], DENSITY, SHAPE).retained["layer"]}
            last, best, lost = linearise(search, start)
            yield row | {"way": WAYS[1], "held": last, "lost": lost}
            yield row | {"way": WAYS[2], "held": best}
            orders, blocks = search.explore(start)
            yield row | {"way": WAYS[3], "held": search.climb(orders, 0.0, blocks).retained["layer"]}
            yield row | {"way": WAYS[4], "held": search.climb(start, 0.0).retained["layer"]}


def linearise(search: PivotSearch, orders: dict[str, np.ndarray]) -> tuple[float, float, int]:
    """Run the steps of the linearisation.

    Returns:
        The weight that blocks hold after the last step and at the best one, and the number of steps that lost weight.
    """
    blocks = search.best_blocks(orders, {})
    weights, lost = [search.mass(orders, blocks)], 0
    for _ in range(STEPS):
        assigned = {"stream": assigned_order("stream", search.matrices, orders, blocks, SHAPE)}
        lost += search.mass(assigned, blocks) < search.mass(orders, blocks) - 1e-9
        orders = assigned
        blocks = search.best_blocks(orders, blocks)
        weights.append(search.mass(orders, blocks))
    return weights[-1], max(weights), lost


def order_tables(rows: list[Row]) -> list[str]:
    """Return the lines of the table."""
    sizes = sorted({int(row["size"]) for row in rows})  # type: ignore[call-overload]
    lines = ["| units | " + " | ".join(WAYS) + " | steps of the linearisation that lose weight |"]
    lines.append("|--:" * (len(WAYS) + 2) + "|")
    for size in sizes:
        cells = []
        for way in WAYS:
            weights = [float(row["held"]) for row in rows if (row["size"], row["way"]) == (size, way)]  # type: ignore[arg-type]
            cells.append(spread_text(weights, 3))
        linearised = [row for row in rows if (row["size"], row["way"]) == (size, WAYS[1])]
        lost = sum(int(row["lost"]) for row in linearised)  # type: ignore[call-overload]
        lines.append(f"| {size} | {' | '.join(cells)} | {lost} of {STEPS * len(linearised)} |")
    return lines
