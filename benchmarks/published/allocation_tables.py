"""Tables of single allocations beside the default."""

import math
from collections import defaultdict
from collections.abc import Sequence

Rows = Sequence[dict[str, object]]


def excess_table(rows: Rows) -> str:
    """Return the mean excess of each allocation over the best one, and the share of cases that the default wins."""
    cases: dict[tuple[object, ...], dict[str, float]] = defaultdict(dict)
    for row in rows:
        case = cases[row["network"], row["examples"], row["draw"]]
        case[str(row["allocation"])] = float(str(row["divergence"]))
    names = sorted({name for case in cases.values() for name in case}, key=lambda name: (name != "default", name))
    lines = ["| allocation | cases | mean excess | largest | default at least as near |", "|---|--:|--:|--:|--:|"]
    for name in names:
        pairs = [
            (case[name], min(value for other, value in case.items() if other != "default"), case["default"])
            for case in cases.values()
            if name in case and "default" in case
        ]
        ratios = [value / best for value, best, _ in pairs]
        wins = sum(default <= value * 1.000001 for value, _, default in pairs)
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        share = "" if name == "default" else f"{wins} of {len(pairs)}"
        lines.append(f"| {name} | {len(pairs)} | {mean - 1:.1%} | {max(ratios) - 1:.0%} | {share} |")
    return "\n".join(lines)


def version_table(rows: Rows) -> str:
    """Return the mean excess of the default's divergence by the version that measured it."""
    best: dict[tuple[object, ...], float] = {}
    defaults: dict[tuple[object, ...], tuple[str, float]] = {}
    for row in rows:
        case, value = (row["network"], row["examples"], row["draw"]), float(str(row["divergence"]))
        run = row["run"]
        assert isinstance(run, dict)
        version = str(run["version"])
        if row["allocation"] == "default":
            defaults[case] = version, value
        else:
            earlier = best.get((*case, version), math.inf)
            best[*case, version] = min(earlier, value)
    excesses = defaultdict[str, list[float]](list)
    for case, (version, value) in defaults.items():
        excesses[version].append(math.log(value / best[*case, version]))
    lines = ["| version | cases, the latest of each | mean excess of the default | largest |", "|---|--:|--:|--:|"]
    for version, logarithms in sorted(excesses.items(), key=lambda item: tuple(map(int, item[0].split(".")))):
        mean, largest = math.exp(sum(logarithms) / len(logarithms)), math.exp(max(logarithms))
        lines.append(f"| {version} | {len(logarithms)} | {mean - 1:.1%} | {largest - 1:.0%} |")
    return "\n".join(lines)


def chosen_table(rows: Rows) -> str:
    """Return the divergence of each allocation in each case; the one that the default chose is marked."""
    cases: dict[tuple[object, ...], dict[str, float]] = defaultdict(dict)
    chosen: dict[tuple[object, ...], object] = {}
    for row in rows:
        case = row["network"], row["examples"], row["draw"]
        cases[case][str(row["allocation"])] = float(str(row["divergence"]))
        if row["allocation"] == "default":
            chosen[case] = row["chosen"]
    names = sorted({name for case in cases.values() for name in case if name != "default"}, reverse=True)
    lines = ["Divergence from the dense network; the allocation that the default chose is set in bold.", ""]
    lines += ["| network, examples, draw | " + " | ".join(names) + " |", "|---|" + "--:|" * len(names)]
    for case, values in cases.items():
        cells = [f"{values[name]:.4f}" if name in values else "" for name in names]
        cells = [f"**{cell}**" if chosen.get(case) == name else cell for cell, name in zip(cells, names, strict=True)]
        lines.append(f"| {case[0]}, {case[1]}, {case[2]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
