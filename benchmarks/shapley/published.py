"""Published estimators and cheap scores beside ours at equal evaluations.

    python -m benchmarks shapley.published --networks vgg demo
    python -m benchmarks shapley.published --networks ResNet-20 ResNet-56 --data DIR
    python -m benchmarks shapley.published --table

DIR holds `cifar10.npz` and the networks, as for `python -m benchmarks published`. One thread: five minutes for each
network, beside the long runs that are the truth, which are stored in `benchmarks/shapley/truth`. Rows are appended to
`benchmarks/results/shapley/published.jsonl`, or to the file of `--out`. An evaluation is one coalition on one example,
and a gradient counts as three. Values of nobody and of all are not counted.
"""

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from provenance import results_folder
from rows import append_row, read_rows
from torch import Tensor

from secateur.importance.shapley.aggregates import mean
from secateur.importance.shapley.auto_sampler import design_scheme
from secateur.importance.shapley.game import Game
from secateur.utils.rng import generator_for
from shapley.cheap_scores import GRADIENT_COST, controlled_by_scores, scores_of_examples
from shapley.estimator_table import error_table
from shapley.points import SEEDS, make_point, mean_point, our_points
from shapley.subjects import SUBJECTS, GameSubject, cifar_subject_of_games, demo_subject
from shapley.surrogates import ESTIMATORS, paired_values
from shapley.truth import truths

ROWS = results_folder("shapley") / "published.jsonl"
BUDGETS = (16, 64)  # evaluations per unit
OURS = ("permutation", "antithetic", "leverage", "controlled")
CIFAR = ("ResNet-20", "ResNet-56")


Row = dict[str, object]


def estimator_rows(subject: GameSubject, game: Game, truth: Tensor) -> Iterator[Row]:
    """Yield the mean error and rank correlation over seeds of every estimator and budget on one group."""
    name, players = game.groups[0].name, game.players
    key: Row = {"network": subject.name, "group": name, "units": players}
    for point in our_points(subject, game, truth, BUDGETS, OURS):
        measures = {"budget": point.budget, "error": point.error, "correlation": point.correlation}
        yield {**key, "estimator": point.method, "evaluations": point.evaluations, **measures}
    scores = {present: scores_of_examples(game, subject, present) for present in (True, False)}
    for budget in BUDGETS:
        estimates: dict[str, list[Tensor]] = {}
        for seed in range(SEEDS):
            values = paired_values(game, budget * players // 2, generator_for(seed, name, "pairs"))
            for method, estimate in ESTIMATORS.items():
                estimates.setdefault(method, []).append(estimate(values) + values.gain / players)
            for present, method in ((True, "antithetic, Taylor"), (False, "antithetic, slopes at nobody")):
                shares = _shares_with_scores(game, subject, scores[present], present, seed, budget * players)
                estimates.setdefault(method, []).append(shares)
        for method, shares_of_seeds in estimates.items():
            points = [
                make_point(method, subject.name, name, budget, (0, budget * players, 0), shares, truth)
                for shares in shares_of_seeds
            ]
            point = mean_point(points)
            measures = {"budget": budget, "error": point.error, "correlation": point.correlation}
            yield {**key, "estimator": method, "evaluations": budget * players, **measures}


def _shares_with_scores(
    game: Game, subject: GameSubject, scores: Tensor, present: bool, seed: int, evaluations: int
) -> Tensor:
    """Return shares along orders with the examples' scores as a control variate, whose cost is counted."""
    sharing = len(subject.context.network.groups) if present else 1  # one backward pass serves all groups
    spent = GRADIENT_COST * subject.examples / sharing
    orders = design_scheme("antithetic", game, mean)
    return controlled_by_scores(game, subject, orders, scores, seed, max(evaluations - spent, 0))


def main() -> None:
    """Measure, or print the table of the rows of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(SUBJECTS), choices=(*SUBJECTS, *CIFAR))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--groups", nargs="+", help="some of the groups; by default all with a stored or new truth")
    parser.add_argument("--out", type=Path, default=ROWS)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(error_table(read_rows(args.out)))
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in args.networks:
        chosen = cifar_subject_of_games(args.data, name) if name in CIFAR else demo_subject(name)
        chosen = chosen.only(args.groups) if args.groups else chosen
        truth = truths(chosen)
        for game in chosen.games():
            for row in estimator_rows(chosen, game, truth[game.groups[0].name]):
                print(row, flush=True)
                append_row(args.out, row)


if __name__ == "__main__":
    main()
