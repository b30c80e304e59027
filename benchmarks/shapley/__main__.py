"""Error, seconds, throughput and scaling of Shapley values, as tables in docs/benchmarks.md.

    python -m benchmarks shapley            # half an hour, one thread
    python -m benchmarks shapley --quick    # one group of the demo's network, a minute
    python -m benchmarks shapley --scaling  # the page's section on scaling anew, two minutes
    python -m benchmarks shapley --precision  # that on bfloat16 and compilers, two minutes
    python -m benchmarks shapley --owen  # the whole network's game, seven minutes
    python -m benchmarks shapley --curves  # the plot of the curves, from the page's own table
    python -m benchmarks shapley.sections  # the sections of `shapley.published` and `shapley.refit_game`

Needs beside Secateur: `pip install captum==0.9.0 shapiq==1.4.1`.
"""

import argparse
from itertools import islice
from pathlib import Path

import torch

from shapley import page, page_texts, sections
from shapley.curves import race, theirs
from shapley.owen import owen
from shapley.points import Point, ours
from shapley.precision import compiled, precise
from shapley.scaling import sweep
from shapley.speed import one_pass, throughput
from shapley.subjects import SUBJECTS, Subject, subject
from shapley.truth import truths

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "shapley.md"


def quick() -> None:
    """The last group of the demo's network, all methods."""
    given = subject("demo")
    truth = truths(given)
    for game in islice(given.games(), len(truth) - 1, None):
        found = truth[game.groups[0].name]
        print(page.points([*ours(given, game, found), *theirs(given, game, found)]))
        print(page.races({"256": [race(given, game, found)]}))


def whole() -> None:
    """Everything, and the page."""
    subjects = {name: subject(name) for name in SUBJECTS}
    truth = {name: truths(given) for name, given in subjects.items()}
    points: list[Point] = []
    throughputs = []
    for name, given in subjects.items():
        for game in given.games():
            found = truth[name][game.groups[0].name]
            points += ours(given, game, found)
            throughputs += [throughput(game)] if name == "vgg" else []
    for game in subjects["vgg"].games():
        if game.groups[0].name in PEERED:
            points += theirs(subjects["vgg"], game, truth["vgg"][game.groups[0].name])
    races = {"256": _races(subjects["vgg"])}
    races["1000"] = _races(subject("vgg", 1000))
    passes = {name: one_pass(given) for name, given in subjects.items()}
    page.write(
        DOCS,
        points,
        races,
        throughputs,
        passes,
        sweep(),
        {page_texts.PRECISION: _precision(), page_texts.OWEN: _owen(), **sections.sections()},
    )


PEERED = ("features.7", "features.14")


def _races(given: Subject) -> list[page.Race]:
    truth = truths(given)
    return [race(given, game, truth[game.groups[0].name]) for game in given.games()]


def _precision() -> str:
    given = subject("vgg")
    return page.precisions(precise(given, truths(given)), compiled(given))


def _owen() -> str:
    return page.wholes([row for name in SUBJECTS for row in owen(subject(name))])


def _scaling() -> None:
    measured = sweep()
    sections.rewrite(PAGE, page_texts.SCALING, page.scaling(measured))
    page.plot(DOCS, measured)


WAYS = {
    "quick": quick,
    "scaling": _scaling,
    "precision": lambda: sections.rewrite(PAGE, page_texts.PRECISION, _precision()),
    "owen": lambda: sections.rewrite(PAGE, page_texts.OWEN, _owen()),
    "curves": lambda: page.redraw(DOCS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in WAYS:
        parser.add_argument(f"--{name}", dest="way", action="store_const", const=name)
    torch.set_num_threads(1)
    WAYS.get(parser.parse_args().way, whole)()


if __name__ == "__main__":
    main()
