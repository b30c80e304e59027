"""Pruning while training with a built-in loop: from a model and data to a smaller model and a report."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from secateur.data.batch import Batch, on_device
from secateur.data.model_inputs import device_of
from secateur.entry import entry_point
from secateur.errors import DataError, OptionError
from secateur.evaluation.outputs import is_logits, main_output, with_named_scores
from secateur.graph.contexts import isolated_evaluation, run_module
from secateur.graph.model_copies import copy_model
from secateur.importance.registry import CriterionLike, find_criterion
from secateur.importance.scores import GroupScores, Scores
from secateur.options.selections import Selection
from secateur.pruning.results import Result
from secateur.report.measured_report import measure_networks
from secateur.surgery.recipe import recipe_of
from secateur.tracing import trace
from secateur.training.session import TrainingSession, training_session
from secateur.training.taylor_schedule import TaylorSchedule
from secateur.utils.plurals import number_of
from secateur.utils.progress import stage

OWN_GATES = "taylor"
TOWARDS = ("dense", "labels")

TAYLOR_STAGES = ("prune", "tune", "cut", "measure")


@entry_point
def prune_while_training(
    model: nn.Module,
    data: Any,
    keep: Mapping[str, float | str],
    by: CriterionLike = OWN_GATES,
    *,
    test: Any = None,
    towards: str = "dense",
    every: int = 10,
    units_per_step: int | None = None,
    round_to: int = 1,
    floor: float = 1,
    tuning_steps: int = 500,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    only: Selection | None = None,
    skip: Selection | None = None,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    progress: bool | None = True,
) -> Result:
    """Train a copy of a model while units are removed, a few at a time, until a budget is met; then train on and cut.

    Args:
        model: the trained model; it is not changed.
        data: examples, with or without labels, as `secateur.prune` takes them.
        keep: the budget: `{"macs": 0.5}`, "params", "bytes" or "units", as `secateur.prune` takes them.
        by: "taylor" for the gates of Molchanov et al. 2019, read from the gradients of the training (`TaylorSchedule`);
            or another criterion, by name or as a function, which scores `data` anew at each removal.
        test: other examples to measure on; by default a part of `data` is kept away, as `prune` does it.
        towards: "dense": towards the outputs of the model as it was, and with a tenth of the loss towards labels, or
            where there are none towards the model's own top classes; "labels": towards labels alone, as published.
        every: as `TaylorSchedule` takes it.
        units_per_step: as `TaylorSchedule` takes it.
        round_to: as `TaylorSchedule` takes it.
        floor: as `TaylorSchedule` takes it.
        tuning_steps: steps of training once the budget is met.
        learning_rate: the learning rate of Adam.
        batch_size: the number of examples in each step.
        only: the groups that may lose units, as `secateur.score` takes them.
        skip: the groups that are left out, as `secateur.score` takes them.
        checkpoint: a folder to write states to at intervals, and to resume from.
        seed: the seed by which examples are drawn.
        progress: True shows the progress on terminals and in notebooks, and writes lines to standard error elsewhere;
            None omits the lines, and False shows nothing. The logger "secateur" has records in any case.

    Returns:
        A result as of `secateur.prune`: the small model, the plan, the scores at the last removal, the report.

    Raises:
        SecateurError: As `TaylorSchedule` and `secateur.prune` raise it.

    Examples:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> result = prune_while_training(model, torch.randn(64, 4), {"units": 0.5}, every=2, tuning_steps=5,
        ...                               progress=False)
        >>> result.model[0], result.report.groups
        (Linear(in_features=4, out_features=4, bias=True), {'0': (8, 4)})
    """
    if towards not in TOWARDS:
        raise OptionError(f"towards={towards!r} is unknown; known are {', '.join(TOWARDS)}")
    find_criterion("taylor-gates" if by == OWN_GATES else by)
    options = (dict(keep), by, towards, every, units_per_step, round_to, floor, only, skip)
    session = training_session(model, data, test, learning_rate, batch_size, seed, checkpoint, options)
    work = copy_model(model, {})
    requires_grad = _require_all_gradients(work)
    network = trace(work, session.example)
    marked_session = session.marked_by(network)
    session = _session_towards(towards, marked_session)
    loop = session.loop(work)
    schedule = TaylorSchedule(
        work, network, loop.optimizer, keep, every=every, units_per_step=units_per_step, round_to=round_to,
        by=None if by == OWN_GATES else by, data=session.batches, floor=floor, only=only, skip=skip,
    )  # fmt: skip
    with stage("prune", TAYLOR_STAGES):
        pruning_steps = loop.until("removals", lambda: schedule.is_finished, schedule)
    with stage("tune", TAYLOR_STAGES):
        loop.run("tuning", tuning_steps, schedule)
    with stage("cut", TAYLOR_STAGES):
        small = _cut_network(schedule, requires_grad)
    steps_text = f"{number_of(pruning_steps, 'step')} until the budget was met"
    note = f"in training towards {towards}, {steps_text}, {tuning_steps:,} more"
    with stage("measure", TAYLOR_STAGES):
        return _result(marked_session, small, schedule, note)


def _require_all_gradients(model: nn.Module) -> dict[str, bool]:
    """Make all floating point parameters require gradients. Return which parameters did before, by name."""
    requires_grad = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return requires_grad


def _cut_network(schedule: TaylorSchedule, requires_grad: Mapping[str, bool]) -> nn.Module:
    """Return the cut network, whose parameters require gradients as those of the dense one did."""
    small = schedule.cut()
    for name, parameter in small.named_parameters():
        parameter.requires_grad_(requires_grad.get(name, True))
        parameter.grad = None
    return small


def _session_towards(towards: str, session: TrainingSession) -> TrainingSession:
    """Return the session with the targets and the loss of an option of `towards`."""
    settings = replace(session.settings, distill=towards == "dense")
    return replace(session, batches=_with_targets(session, towards), settings=settings)


def _with_targets(session: TrainingSession, towards: str) -> list[Batch]:
    """Return examples with targets for which the loss has a gradient at the dense network: labels, or its top classes.

    Raises:
        DataError: There are no labels, and they are required or outputs are no class scores.
    """
    batches = []
    for batch in session.batches:
        if batch.target is not None:
            batches.append(batch)
            continue
        if towards == "labels":
            raise DataError("towards='labels' needs labels; give (inputs, target) batches, or towards='dense'")
        with isolated_evaluation(session.dense):
            output = run_module(session.dense, on_device(batch, device_of(session.dense)))
        if not is_logits(with_named_scores(output, batch.has_token_scores)):
            raise DataError(
                "pruning while training needs labels here: without any, and with outputs that are no class scores, the "
                "loss has no gradient at the dense network; give (inputs, target) batches, or use secateur.prune"
            )
        batches.append(replace(batch, target=main_output(output).argmax(-1).cpu()))
    return batches


def _result(session: TrainingSession, small: nn.Module, schedule: TaylorSchedule, note: str) -> Result:
    """Return the result, measured beside the dense network."""
    groups = {name: GroupScores.exact(values) for name, values in schedule.averages.items()}
    name = "taylor-gates" if schedule.by is None else find_criterion(schedule.by).name
    scores = Scores(groups, name, session.settings.seed, {}, note)
    plan = schedule.plan
    report = measure_networks(session.dense, small, plan, scores, session.measured, None, steps=())
    return Result(small, plan, scores, report, recipe_of(session.dense, plan))
