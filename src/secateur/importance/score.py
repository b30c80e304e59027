"""`score`: what each unit of a network is worth, by any criterion."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.coupling.network import Group, Network
from secateur.coupling.residual_blocks import without_blocks
from secateur.data.batch import on_device
from secateur.data.conversion import as_batches
from secateur.entry import entry_point
from secateur.errors import DataError, NameMatchError
from secateur.evaluation.losses import Loss
from secateur.importance import (
    activation,
    gradient,
    integrated_gradients,
    lean,
    leave_one_out,
    magnitude,
    obs,
    random,
    taylor2019,
)
from secateur.importance.checkpoint import Checkpoint, fingerprint, load_checkpoint
from secateur.importance.context import CriterionContext, as_examples, network_microbatches
from secateur.importance.data_checks import check_inputs, check_losses
from secateur.importance.registry import Criterion, check_criterion, find_criterion, registered
from secateur.importance.scores import GroupScores, Scores
from secateur.importance.shapley import estimate as shapley_values
from secateur.importance.shapley import owen
from secateur.importance.shapley.aggregates import find_aggregate
from secateur.importance.shapley.precision import find_precision
from secateur.importance.shapley.samplers.base import Sampler
from secateur.importance.shapley.stopping import Rule
from secateur.masking.ablation import consumer_means
from secateur.masking.imputation import consumer_moments
from secateur.options import check_name, check_option, described
from secateur.utils.distributed import process_rank

BUILT_IN = (
    activation,
    random,
    gradient,
    integrated_gradients,
    leave_one_out,
    obs,
    taylor2019,
    lean,
    magnitude,
    shapley_values,
    owen,
)


NAMES_IN_FINGERPRINTS = {"impute": "refit"}  # those of version 0.9, so that its checkpoints continue


@entry_point
def score(
    network: Network,
    data: Any = None,
    by: str | Criterion = "shapley",
    *,
    loss: Loss | None = None,
    ablation: str = "mean",
    aggregate: str | float | Callable[[Tensor], Tensor] | None = None,
    estimator: str | Sampler = "auto",
    coalitions: int | None = None,
    stop: Rule | None = None,
    protocol: str | None = None,
    only: str | Sequence[str] | None = None,
    skip: str | Sequence[str] | None = None,
    seed: int = 0,
    memory: int | None = None,
    precision: str | None = None,
    resume: Scores | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Scores:
    """Score every unit of a network; low goes first.

    Args:
        network: the traced network.
        data: any iterable of batches: `(inputs, target)`, a dict of inputs (`labels` are the target), or inputs alone;
            or single examples: a `Dataset`, rows of one. Arrays and lists of numbers are as good as tensors.
            Without targets, losses are the divergence from the dense network's own output. None for criteria that
            look at weights alone.
        by: a criterion's name (`secateur.criteria()` lists them) or a function like one.
        loss: of the output and the target (without targets: the dense output), one value per example (examples,).
            By default cross entropy for class numbers, squared error for other targets.
        ablation: what stands in the place of an absent unit: its mean over the data ("mean"), which a cut folds into
            the biases of its readers; its best linear prediction from the units that stay ("impute"), which a repair by
            least squares comes to; or nothing ("zero").
        aggregate: for "shapley", from each example's values to one score: "robust" (the default), "mean", "published",
            "absolute", a quantile between 0.0 and 1.0, or a function from (units, examples) to (units,).
        estimator: for "shapley": "controlled", "permutation", "antithetic", "orthogonal", "leverage", "kernelshap",
            "adjusted", "svarm", "exact", or "banzhaf" for that other value; or a function like one. "auto" chooses, and
            `print(scores)` says what: docs/criteria.md has what each does.
        coalitions: for "shapley", how many to evaluate for each group, about.
        stop: for "shapley", when it is enough: one of the rules in `secateur.stopping`, or several, such as
            `Error(0.2) | Seconds(60)`. By default errors of half of the spread.
        protocol: "paper" for that of Ancona et al. 2020: 5 permutations, the same for all examples, zero ablation,
            the "published" aggregate.
        only: globs of the names of groups to score; `skip`: of those to leave out.
        seed: all randomness is drawn from it.
        memory: the most bytes of activations that are held at once, for "obs", Shapley values and all criteria by
            leaving units out. It never changes a result. A limit below what one step takes is refused with the
            smallest limit that works. By default 1 GiB, or one step where that takes more; for "obs" one pass.
        precision: "bfloat16" for the coalitions of Shapley values and the like: up to three times as fast where the
            machine has instructions for it, each coalition's loss known to two or three digits. By default the
            network's own. Losses are taken in float32 in any case.
        resume: earlier Shapley values of the same network and examples, which are refined: nothing is done twice.
        checkpoint: a file to write the scores to now and then; a run that finds it there goes on from it, and ends with
            the same bits as one that was never interrupted.
        progress: show a progress bar, on a terminal.

    Returns:
        Scores: for each group its values (units,) and their standard errors.

    Raises:
        NameMatchError: a name matches nothing.
        DataError: the examples can't be used, or scores to resume are of something else.

    Example:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> scores = sc.score(network, torch.randn(64, 4), by="shapley", progress=False)
        >>> scores["0"].values.shape, scores["0"].errors.shape
        (torch.Size([8]), torch.Size([8]))
    """
    name, function = find_criterion(by)
    ablation = "zero" if protocol == "paper" else ablation
    network = without_blocks(network)
    groups = network.select(only, skip)
    if not groups:
        raise NameMatchError(f"there is no group to score: only={only!r} and skip={skip!r} leave none of\n{network}")
    options: dict[str, Any] = {
        "aggregate": aggregate,
        "estimator": estimator,
        "coalitions": coalitions,
        "protocol": protocol,
        "memory": memory,
        "precision": precision,
        "stop": stop,
    }
    check_criterion(by, {**options, "resume": resume})
    find_aggregate("mean" if aggregate is None else aggregate)
    with torch.random.fork_rng(devices=[]):
        batches = as_batches(data, network.batch_size, dtype=_floating_type(network)) if data is not None else []
        batches = [on_device(batch, network.device) for batch in as_examples(network, batches)]
        context = CriterionContext(network, groups, (), loss, {}, seed, options, progress)
        with torch.no_grad():
            outputs = check_inputs(context.forward, batches, by_example=loss is None)
        if registered(by).uses in ("loss", "gradients"):
            check_losses(outputs, batches, loss, registered(by).uses)
        cells = network_microbatches(network, batches)
        means = consumer_means(network, cells) if ablation != "zero" and cells else {}
        moments = consumer_moments(network, cells) if ablation == "impute" and cells else {}
        said = (
            name,
            NAMES_IN_FINGERPRINTS.get(ablation, ablation),
            seed,
            protocol,
            "" if loss is None else getattr(loss, "__qualname__", ""),
        )
        rounded = () if find_precision(precision) is None else (precision,)
        mark = functools.cache(functools.partial(fingerprint, network, cells, *said, *rounded))
        path = None if checkpoint is None else Path(checkpoint)
        before = load_checkpoint(resume, path, mark, network, sum(cell.size or 1 for cell in cells))

        def as_scores(groups: Mapping[str, GroupScores]) -> Scores:
            drawn = any(scores.samples is not None for scores in groups.values())
            return Scores(groups, name, seed, means, _note(ablation, cells, *rounded), mark() if drawn else "")

        keep = None if path is None else Checkpoint(path, as_scores, {} if before is None else before.groups)
        options |= {"resume": before, "keep": keep}
        try:
            found = function(CriterionContext(network, groups, cells, loss, means, seed, options, progress, moments))
        except KeyboardInterrupt:
            if keep is not None:
                keep.write()
            raise
    scores = as_scores({group.name: _checked(name, group, found) for group in groups})
    if path is not None and process_rank() == 0:
        scores.save(path)
    return scores


READ_BY_CRITERIA = (
    "aggregate", "estimator", "coalitions", "stop", "protocol", "memory", "precision", "resume", "checkpoint",
)  # fmt: skip


def check_scoring(by: str | Criterion, options: Mapping[str, Any]) -> None:
    """Check options of `score` that another function hands on.

    Raises:
        NameMatchError: there is no such criterion or option; the nearest is offered.
        OptionError: an option has a wrong type or value, or does not apply to the criterion.
    """
    annotations = inspect.get_annotations(inspect.unwrap(score))
    for name, value in options.items():
        check_name(name, READ_BY_CRITERIA, "`score` has no option")
        check_option(name, value, annotations[name])
    check_criterion(by, {name: value for name, value in options.items() if name != "checkpoint"})
    find_aggregate("mean" if options.get("aggregate") is None else options["aggregate"])


def _floating_type(network: Network) -> torch.dtype | None:
    return next((network.program.state(name).dtype for name in network.program.parameters), None)


def _note(ablation: str, cells: Sequence[Any], *further: str | None) -> str:
    examples = sum(cell.size or 1 for cell in cells)
    return (
        ", ".join([f"{examples} examples", f"{ablation} ablation", *map(str, further)]) if examples else "no examples"
    )


def _checked(name: str, group: Group, found: object) -> GroupScores:
    """What a criterion gave for a group, as scores.

    Raises:
        DataError: it gave nothing, NaN, or not one score per unit.
    """
    if not isinstance(found, Mapping):
        raise DataError(
            f"criterion {name!r} gave {described(found)}; it must return a dict from the names of evidence.groups to "
            "one score per unit"
        )
    given = found.get(group.name)
    if given is not None and not isinstance(given, GroupScores):
        given = _from_tensor(_as_tensor(name, group, given))
    values = given.values if given is not None else None
    if values is None or values.shape != (group.size,) or not bool(torch.isfinite(values).all()):
        got = "nothing" if values is None else f"scores of shape {tuple(values.shape)}"
        bad = " with NaN or infinity among them" if values is not None and values.shape == (group.size,) else ""
        raise DataError(f"criterion {name!r} gave {got}{bad} for {group.name}, which has {group.size} units")
    assert given is not None
    return given


def _as_tensor(name: str, group: Group, scores: Any) -> Tensor:
    """Scores in any form that torch can make a tensor of.

    Raises:
        DataError: it can't.
    """
    try:
        return torch.as_tensor(scores).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as failure:
        raise DataError(
            f"criterion {name!r} gave {described(scores)} for {group.name}, which is no tensor of its {group.size} "
            f"units' scores: {failure}"
        ) from failure


def _from_tensor(values: Tensor) -> GroupScores:
    """One score per unit, or the mean of one per unit and example with its standard error."""
    if values.dim() != 2:
        return GroupScores(values.double(), torch.zeros(values.shape, dtype=torch.float64))
    values = values.double()
    examples = values.shape[1]
    errors = values.std(1) / examples**0.5 if examples > 1 else torch.zeros(len(values), dtype=torch.float64)
    return GroupScores(values.mean(1), errors, values)
