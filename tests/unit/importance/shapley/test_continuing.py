"""Stopping rules, going on from earlier scores, and interrupted runs."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch

import secateur as sc
from commands import run_python, start_python
from comparisons import are_same_scores
from secateur import demo
from secateur.importance.shapley.stopping import EstimateState
from secateur.stopping import Coalitions, Evaluations, Rule, Seconds, SelectionConfident, Stable, StandardError

GROUP = "layer2.1.conv1"
OPTIONS: Any = {"only": GROUP, "aggregate": "mean", "progress": False}


@pytest.fixture(scope="module")
def network() -> sc.Network:
    return sc.trace(demo.network(), demo.calibration()[0][:2])


def scored(network: sc.Network, **options: Any) -> Any:
    return sc.score(network, demo.calibration()[:3], **{**OPTIONS, **options})


def blocks(scores: Any) -> int:
    return len(scores[GROUP].samples)


def test_counts_stop_at_the_first_look_that_has_them(network: sc.Network) -> None:
    assert blocks(scored(network, stop=Coalitions(10))) == 8
    scores = scored(network, stop=Evaluations(4500))
    assert blocks(scores) == 12 and scores[GROUP].evaluations >= 4500
    assert blocks(scored(network, coalitions=1500)) == 12


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Coalitions(1200) & Coalitions(1500), 12),
        (Coalitions(1500) | Coalitions(10), 8),
        (StandardError(1e-9) | Coalitions(10), 8),
        (StandardError(1e9) & Coalitions(1500), 12),
        (Stable(0.1), 8),
        (SelectionConfident(0.5, 0.99) | Coalitions(1500), 12),
        (Seconds(1e-6), 8),
    ],
)
def test_rules_compose(network: sc.Network, rule: Rule, expected: int) -> None:
    scores = scored(network, stop=rule)
    assert blocks(scores) == expected
    assert str(rule) in str(scores)


def test_evaluations_count_for_a_group_or_each_unit_and_more_in_later_layers() -> None:
    state = EstimateState(10, 60, lambda seconds: 0.0, lambda: (torch.zeros(4, 3), torch.zeros(3)))
    unexamined = EstimateState(10, 60, lambda seconds: 0.0, lambda: pytest.fail("a count needs no errors"))
    assert (Evaluations(30) | Coalitions(10)).progress(unexamined) == 2
    rules = [Evaluations(30), Evaluations(30, per_unit=True), Evaluations(30, per_unit=True, depth=0.25)]
    assert [rule.progress(state) for rule in rules] == [60 / 30, 60 / 90, 15 / 90]
    assert [str(rule) for rule in rules] == [
        "30 evaluations",
        "30 evaluations per unit",
        "30 evaluations per unit, more in later layers",
    ]


def test_stricter_rules_take_longer_and_reach_what_they_say(network: sc.Network) -> None:
    loose, strict = (scored(network, stop=StandardError(error) | Coalitions(20_000))[GROUP] for error in (1.0, 0.5))
    assert strict.coalitions > loose.coalitions
    assert float(strict.errors_here.max() / strict.values.std()) <= 0.52
    known = scored(network, stop=SelectionConfident(0.5, 0.7) | Coalitions(6000))[GROUP]
    assert known.coalitions >= loose.coalitions


def test_rules_are_named_with_the_words_and_and_or() -> None:
    one, two, three = Coalitions(5), Seconds(3), Evaluations(7)
    assert str(one | two | three) == "5 coalitions or 3 seconds or 7 evaluations"
    assert str(one & two | three) == "(5 coalitions and 3 seconds) or 7 evaluations"
    assert str(one & (two | three)) == "5 coalitions and (3 seconds or 7 evaluations)"


def test_heuristics_say_that_they_are() -> None:
    for rule in (StandardError(0.1), Stable(), SelectionConfident(0.5)):
        assert rule.heuristic
    assert not (Coalitions(5) & Seconds(3)).heuristic
    both = StandardError(0.1) | Stable()
    assert StandardError(0.1).heuristic in both.heuristic and Stable().heuristic in both.heuristic


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Coalitions(0),
        lambda: Seconds(0),
        lambda: StandardError(-1),
        lambda: SelectionConfident(1.5),
        lambda: Evaluations(0),
        lambda: Evaluations(10, depth=0),
    ],
)
def test_impossible_rules_are_refused(wrong: Any) -> None:
    with pytest.raises(sc.SecateurError, match=r"give|between"):
        wrong()


def test_what_is_no_rule_is_refused(network: sc.Network) -> None:
    with pytest.raises(sc.SecateurError, match=r"give a rule of `secateur\.stopping`"):
        scored(network, stop=0.1)


@pytest.mark.parametrize(("estimator", "count"), [("auto", 2500), ("leverage", 6000), ("antithetic", 2500)])
def test_refined_scores_are_those_of_one_long_run(
    network: sc.Network, tmp_path: Path, estimator: str, count: int
) -> None:
    short = scored(network, stop=Coalitions(10), estimator=estimator)
    short.save(tmp_path / "scores.safetensors")
    short = sc.Scores.load(tmp_path / "scores.safetensors")
    longer = scored(network, stop=Coalitions(count), estimator=estimator, resume=short)
    straight = scored(network, stop=Coalitions(count), estimator=estimator)
    assert are_same_scores(longer, straight)
    assert blocks(longer) > blocks(short)
    assert blocks(scored(network, stop=Coalitions(10), estimator=estimator, resume=longer)) == blocks(longer)


def test_scores_of_something_else_are_not_refined(network: sc.Network) -> None:
    short = scored(network, stop=Coalitions(10))
    for other in ({"seed": 1}, {"ablation": "zero"}):
        with pytest.raises(sc.SecateurError, match="another network, other examples, or other options"):
            scored(network, resume=short, **other)
    with pytest.raises(sc.SecateurError, match="another network"):
        sc.score(network, demo.calibration()[:2], **OPTIONS, resume=short)
    with pytest.raises(sc.SecateurError, match="ask for the same estimator"):
        scored(network, resume=short, estimator="leverage")


def test_scores_without_blocks_are_not_refined(network: sc.Network) -> None:
    plain = scored(network, by="taylor", aggregate=None)
    with pytest.raises(sc.SecateurError, match="hold no samples"):
        scored(network, resume=plain)
    with pytest.raises(sc.SecateurError, match="resume= does not apply to by='taylor'"):
        scored(network, by="taylor", aggregate=None, resume=plain)


def test_a_stopped_run_writes_what_it_has(network: sc.Network, tmp_path: Path) -> None:
    path, calls = tmp_path / "part.safetensors", []

    def loss(output: Any, target: Any) -> Any:
        calls.append(1)
        if len(calls) > 100:
            raise KeyboardInterrupt
        return (output - target).square().mean(1)

    with pytest.raises(KeyboardInterrupt):
        scored(network, loss=loss, stop=Coalitions(100_000), checkpoint=path)
    assert blocks(sc.Scores.load(path)) > 0


def test_a_damaged_checkpoint_is_refused_and_left(network: sc.Network, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    scored(network, stop=Coalitions(10), checkpoint=path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(sc.SecateurError):
        scored(network, stop=Coalitions(10), checkpoint=path)
    assert path.read_bytes() == whole[: len(whole) // 2]


SCRIPT = """
import sys
import torch
import secateur as sc
from secateur import demo
from secateur.importance import checkpoint as continuing
from secateur.stopping import Coalitions

torch.set_num_threads(1)
continuing.EVERY = 0.0
network = sc.trace(demo.network(), demo.calibration()[0][:2])
scores = sc.score(
    network, demo.calibration()[:2], only="layer2.*", stop=Coalitions(1500), checkpoint=sys.argv[1], progress=False
)
"""


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Killed again and again, it goes on from what it wrote."""
    straight, broken = tmp_path / "straight.safetensors", tmp_path / "broken.safetensors"
    (tmp_path / "scoring.py").write_text(SCRIPT)
    assert run_python(tmp_path, "scoring.py", str(straight)).returncode == 0
    kills = 0
    for _ in range(12):
        run = start_python(tmp_path, "scoring.py", str(broken))
        before = broken.stat().st_mtime_ns if broken.exists() else 0
        while kills < 3 and run.process.is_alive():
            time.sleep(0.02)
            if broken.exists() and broken.stat().st_mtime_ns != before:
                run.kill()
                kills += 1
                break
        if run.completed().returncode == 0:
            break
    assert kills == 3
    assert are_same_scores(sc.Scores.load(straight), sc.Scores.load(broken))
