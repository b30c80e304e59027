"""The values that estimates are compared with: long runs of two estimators that must agree within their errors."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from secateur.importance.shapley.aggregates import mean
from secateur.importance.shapley.auto_sampler import scheme_for
from secateur.importance.shapley.config import Shapley
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.jackknife import jackknife_estimate
from secateur.importance.shapley.samplers.leverage import leverage
from secateur.importance.shapley.samplers.permutation import antithetic
from secateur.importance.shapley.sampling_blocks import DesignScheme
from shapley.subjects import Subject, relative_error

FOLDER = Path(__file__).with_name("truth")
SEED, BLOCKS = 1_000_003, 192


def truths(subject: Subject) -> dict[str, Tensor]:
    """The true values of each group, read, or computed and stored."""
    path = FOLDER / f"{subject.name}-{subject.examples}.safetensors"
    FOLDER.mkdir(exist_ok=True)
    found = load_file(path) if path.exists() else {}
    for game in tqdm(subject.games(), desc=f"truth of {subject.name}", total=len(subject.context.groups)):
        name = game.groups[0].name
        if f"{name}/value" not in found:
            found |= {f"{name}/{part}": value for part, value in _long(subject, game, name).items()}
            save_file(found, path)
    stored = load_file(path)
    for name in {key.rpartition("/")[0] for key in stored}:
        _check(name, *(stored[f"{name}/{part}"] for part in ("value", "error", "other", "other_error")))
    return {key.removesuffix("/value"): value for key, value in stored.items() if key.endswith("/value")}


def _long(subject: Subject, game: Game, name: str) -> dict[str, Tensor]:
    own = scheme_for(game, Shapley(), mean, SEED, name)
    orders = isinstance(own, DesignScheme) and own.name == "antithetic"
    other = DesignScheme("leverage", leverage, 20, spread=True) if orders else DesignScheme("antithetic", antithetic, 4)
    found, others = (
        jackknife_estimate(
            [layout.sample(game, subject.numbers, SEED, name, block) for block in range(BLOCKS)], subject.examples, mean
        )
        for layout in (own, other)
    )
    return {
        "value": found.values,
        "error": found.errors_here,
        "other": others.values,
        "other_error": others.errors_here,
    }


def _check(name: str, value: Tensor, error: Tensor, other: Tensor, other_error: Tensor) -> None:
    """The two estimators differ by no more than their errors let expect."""
    expected = float((error.square() + other_error.square()).sum() / value.square().sum())
    gap = relative_error(other, value)
    own = float(error.square().sum() / value.square().sum())
    print(f"{name:16s} truth's relative squared error {own:.4f}; gap of the two {gap:.4f}, expected {expected:.4f}")
    if gap > 2.5 * expected:
        raise SystemExit(f"the two long runs of {name} disagree")
