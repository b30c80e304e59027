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
from shapley.subjects import GameSubject, relative_error

FOLDER = Path(__file__).with_name("truth")
SEED, BLOCKS = 1_000_003, 192


def truths(subject: GameSubject) -> dict[str, Tensor]:
    """Return the true values of each group; they are read, or computed and stored."""
    path = FOLDER / f"{subject.name}-{subject.examples}.safetensors"
    FOLDER.mkdir(exist_ok=True)
    stored = load_file(path) if path.exists() else {}
    for game in tqdm(subject.games(), desc=f"truth of {subject.name}", total=len(subject.context.groups)):
        name = game.groups[0].name
        if f"{name}/value" not in stored:
            stored |= {f"{name}/{quantity}": value for quantity, value in _long_runs(subject, game, name).items()}
            save_file(stored, path)
    stored = load_file(path)
    for name in {key.rpartition("/")[0] for key in stored}:
        _check_agreement(
            name, *(stored[f"{name}/{quantity}"] for quantity in ("value", "error", "other", "other_error"))
        )
    return {key.removesuffix("/value"): value for key, value in stored.items() if key.endswith("/value")}


def _long_runs(subject: GameSubject, game: Game, name: str) -> dict[str, Tensor]:
    default_scheme = scheme_for(game, Shapley(), mean, SEED, name)
    is_antithetic = isinstance(default_scheme, DesignScheme) and default_scheme.name == "antithetic"
    other_scheme = (
        DesignScheme("leverage", leverage, 20, spread=True)
        if is_antithetic
        else DesignScheme("antithetic", antithetic, 4)
    )
    estimate, other_estimate = (
        jackknife_estimate(
            [scheme.sample(game, subject.numbers, SEED, name, block) for block in range(BLOCKS)], subject.examples, mean
        )
        for scheme in (default_scheme, other_scheme)
    )
    return {
        "value": estimate.values,
        "error": estimate.errors_here,
        "other": other_estimate.values,
        "other_error": other_estimate.errors_here,
    }


def _check_agreement(name: str, value: Tensor, error: Tensor, other: Tensor, other_error: Tensor) -> None:
    """Raise SystemExit where the two estimators differ by more than their errors let expect."""
    expected = float((error.square() + other_error.square()).sum() / value.square().sum())
    gap = relative_error(other, value)
    estimated = float(error.square().sum() / value.square().sum())
    error_text = f"truth's relative squared error {estimated:.4f}"
    print(f"{name:16s} {error_text}; gap of the two {gap:.4f}, expected {expected:.4f}")
    if gap > 2.5 * expected:
        raise SystemExit(f"the two long runs of {name} disagree")
