"""Full fine-tuning: criteria beside a random ranking (Ancona et al. 2020).

The figures are test accuracies in % before and after fine-tuning on all training images. `shapley` is the default:
mean ablation, the default estimator, `aggregate="robust"`.
"""

from collections import defaultdict
from collections.abc import Iterator

import secateur as sc
from papers.layerwise import spread
from papers.settings import Row, Settings
from papers.subjects import fully_tuned, subject

KEPT = {0.25: 1.0, 0.05: 2.0}  # of the units, with the epochs of fine-tuning
CRITERIA = ("shapley", "obs", "taylor", "l1", "random")


def rows(settings: Settings) -> Iterator[Row]:
    """The accuracy before and after fine-tuning on all training images."""
    for seed in settings.seeds[: 1 if settings.quick else None]:
        it = subject(settings, seed)
        data, dense = it.images(500), it.model()
        network = sc.trace(dense, data[0][0][:2])
        for by in CRITERIA[-2:] if settings.quick else CRITERIA:
            scores = sc.score(network, data, by, seed=seed, progress=False)
            for keep, epochs in KEPT.items():
                small = sc.cut(dense, sc.plan(network, scores, {"units": keep}))
                row: Row = {"by": by, "seed": seed, "keep": keep, "before": it.accuracy(small)}
                fully_tuned(small, it.split, epochs / 20 if settings.quick else epochs, seed)
                yield row | {"after": it.accuracy(small)}


def page(rows: list[Row]) -> list[str]:
    """Before and after."""
    found: defaultdict[tuple[object, object], list[Row]] = defaultdict(list)
    for row in rows:
        found[row["by"], row["keep"]].append(row)
    cells = [f"{keep:.0%} kept, {when}" for keep in KEPT for when in ("before", "after")]
    lines = ["| criterion | " + " | ".join(cells) + " |", "|---" * (len(cells) + 1) + "|"]
    for by in dict.fromkeys(str(row["by"]) for row in rows):
        shown = [
            spread([100 * float(row[when]) for row in found[by, keep]], 1)[0]
            for keep in KEPT
            for when in ("before", "after")
        ]  # type: ignore[arg-type]
        lines.append(f"| {by} | {' | '.join(shown)} |")
    return [*lines, "", "Published (CIFAR-10, VGG-16-BN, 5 % kept, after fine-tuning): random 73.9, Shapley 72.4."]
