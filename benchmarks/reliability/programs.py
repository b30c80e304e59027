"""Saved programs that hold code, in each of the ways in which torch would run it when it loads them."""

import collections
import shutil
from pathlib import Path

import secateur as sc
from damaged import examples, make
from poisoned import WAYS, poison, rewrite


def program_outcomes(folder: Path) -> dict[str, collections.Counter[str]]:
    """Load poisoned programs, and a plain result that is made to claim that it is a program."""
    for name, as_program in (("program", True), ("plain", False)):
        options = {"by": "l2", "repair": None, "progress": False, "as_program": as_program}
        sc.prune(make(), examples(), {"units": 0.6}, **options).save(folder / name)
    counts_by_way = {}
    for way in WAYS:
        counts: collections.Counter[str] = collections.Counter()
        for name in ("program", "plain"):
            target, mark = folder / f"{way} {name}", folder / f"{way} {name} ran"
            shutil.copytree(folder / name, target)
            shutil.copy(folder / "program" / "model.pt2", target)
            poison(target / "model.pt2", way, mark)
            if name == "plain":
                rewrite(target / "recipe.json", program=True)
            try:
                sc.load(make(), target)
            except sc.SecateurError:
                counts["refused"] += 1
            counts["code ran" if mark.exists() else "nothing ran"] += 1
        counts_by_way[way] = counts
    return counts_by_way
