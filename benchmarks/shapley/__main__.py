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
from shapley.curves import Race, peer_points, race
from shapley.owen import measure_owen
from shapley.plots import plot_scaling
from shapley.points import Point, our_points
from shapley.precision import measure_compiled, measure_precisions
from shapley.scaling import measure_scaling
from shapley.speed import measure_throughput, one_pass
from shapley.subjects import SUBJECTS, GameSubject, demo_subject
from shapley.truth import truths

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "shapley.md"
PEERED = ("features.7", "features.14")


def run_quick() -> None:
    """Print the points and the race of the last group of the demo's network, by all methods."""
    subject = demo_subject("demo")
    truth = truths(subject)
    for game in islice(subject.games(), len(truth) - 1, None):
        values = truth[game.groups[0].name]
        print(page.points_table([*our_points(subject, game, values), *peer_points(subject, game, values)]))
        print(page.races_table({"256": [race(subject, game, values)]}))


def run_all() -> None:
    """Measure everything, and write the page."""
    subjects = {name: demo_subject(name) for name in SUBJECTS}
    truth = {name: truths(subject) for name, subject in subjects.items()}
    points: list[Point] = []
    throughputs = []
    for name, subject in subjects.items():
        for game in subject.games():
            points += our_points(subject, game, truth[name][game.groups[0].name])
            throughputs += [measure_throughput(game)] if name == "vgg" else []
    for game in subjects["vgg"].games():
        if game.groups[0].name in PEERED:
            points += peer_points(subjects["vgg"], game, truth["vgg"][game.groups[0].name])
    races = {"256": _races(subjects["vgg"]), "1000": _races(demo_subject("vgg", 1000))}
    passes = {name: one_pass(subject) for name, subject in subjects.items()}
    further = {page_texts.PRECISION: _precision_section(), page_texts.OWEN: _owen_section(), **sections.sections()}
    measured = page.PageMeasurements(points, races, throughputs, passes, measure_scaling(), further)
    page.write_shapley_page(DOCS, measured)


def _races(subject: GameSubject) -> list[Race]:
    truth = truths(subject)
    return [race(subject, game, truth[game.groups[0].name]) for game in subject.games()]


def _precision_section() -> str:
    subject = demo_subject("vgg")
    return page.precision_section(measure_precisions(subject, truths(subject)), measure_compiled(subject))


def _owen_section() -> str:
    return page.owen_section([row for name in SUBJECTS for row in measure_owen(demo_subject(name))])


def _write_scaling() -> None:
    measurements = measure_scaling()
    sections.rewrite_section(PAGE, page_texts.SCALING, page.scaling_section(measurements))
    plot_scaling(DOCS, measurements)


WAYS = {
    "quick": run_quick,
    "scaling": _write_scaling,
    "precision": lambda: sections.rewrite_section(PAGE, page_texts.PRECISION, _precision_section()),
    "owen": lambda: sections.rewrite_section(PAGE, page_texts.OWEN, _owen_section()),
    "curves": lambda: page.redraw_curves(DOCS),
}


def main() -> None:
    """Read the option, and run what it names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in WAYS:
        parser.add_argument(f"--{name}", dest="way", action="store_const", const=name)
    torch.set_num_threads(1)
    WAYS.get(parser.parse_args().way, run_all)()


if __name__ == "__main__":
    main()
