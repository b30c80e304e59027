"""One run of a criterion: what is known before, the scores with their digests, and errors of gradients."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from secateur.errors import MissingGradientError
from secateur.evaluation.losses import Loss
from secateur.files.setting_texts import setting_text
from secateur.importance.checkpoint import Checkpoint, fingerprint, load_checkpoint, weights_digest
from secateur.importance.context import CriterionContext
from secateur.importance.criterion_output import group_scores
from secateur.importance.registry import RegisteredCriterion, UnitScores
from secateur.importance.scores import GroupScores, Scores
from secateur.importance.shapley.aggregates import aggregate_in_words
from secateur.importance.shapley.config import EvaluationConfig, SamplingConfig, Shapley
from secateur.importance.shapley.precision import find_precision
from secateur.utils.distributed import check_same_inputs, is_shared, process_rank

NAMES_IN_FINGERPRINTS = {"impute": "refit"}  # those of version 0.9, so that its checkpoints continue


@dataclass(frozen=True)
class ScoringRun:
    """One run of a criterion with its input.

    Args:
        criterion: the criterion.
        context: its input.
        ablation: the replacement of absent units.
    """

    criterion: RegisteredCriterion
    context: CriterionContext
    ablation: str

    @cached_property
    def precision(self) -> tuple[str, ...]:
        """The precision of coalitions where it is not the network's own."""
        config = self.criterion.config
        name = config.precision if isinstance(config, EvaluationConfig) else None
        return () if name is None or find_precision(name) is None else (name,)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of everything that the samples of a game depend on, beside the sampling scheme."""
        config, loss = self.criterion.config, self.context.loss
        ablation = NAMES_IN_FINGERPRINTS.get(self.ablation, self.ablation)
        protocol = config.protocol if isinstance(config, Shapley) else None
        options = (self.criterion.name, ablation, self.context.seed, protocol, _loss_text(loss), *self.precision)
        return fingerprint(self.context.network, self.context.microbatches, *options)

    def scores(self, groups: Mapping[str, GroupScores]) -> Scores:
        """Return the scores of some groups."""
        examples = self.context.example_count
        config = self.criterion.config
        aggregate = (aggregate_in_words(config.chosen_aggregate),) if isinstance(config, SamplingConfig) else ()
        note = ", ".join((f"{examples} examples", f"{self.ablation} ablation", *aggregate, *self.precision))
        is_sampled = any(scores.samples is not None for scores in groups.values())
        return Scores(
            groups,
            self.criterion.name,
            self.context.seed,
            self.context.means,
            note if examples else "no examples",
            self.fingerprint if is_sampled else "",
            weights_digest(self.context.network),
        )


def _loss_text(loss: Loss | None) -> str:
    """Return the user's loss in words: a plain function by its name alone, as in version 0.9."""
    name, text = getattr(loss, "__qualname__", ""), "" if loss is None else setting_text(loss)
    return name if name and text == f"{loss.__module__}.{name}" else text


def run_criterion(scoring: ScoringRun, resume: Scores | None, path: Path | None) -> Scores:
    """Score all groups, from the scores to resume or the checkpoint on.

    Units that nothing reads, such as those of a pooler that is not used, are worth nothing by any criterion.

    Raises:
        DataError: scores to resume are of something else, or the criterion returned no scores.
        MissingGradientError: the criterion differentiates an operator that has no gradient.
    """
    context, name = scoring.context, scoring.criterion.name
    groups_with_consumers = tuple(group for group in context.groups if context.network.consumers_of(group))
    scoring = replace(scoring, context=replace(context, groups=groups_with_consumers))
    if is_shared():
        check_same_inputs(f"scores by {name!r} of the inputs {scoring.fingerprint}")
    output = _criterion_output(scoring, resume, path) if groups_with_consumers else {}
    groups = {
        group.name: group_scores(name, group, output)
        if group in groups_with_consumers
        else GroupScores.exact(torch.zeros(group.size, dtype=torch.float64))
        for group in context.groups
    }
    scores = scoring.scores(groups)
    if path is not None and process_rank() == 0:
        scores.save(path)
    return scores


def _criterion_output(scoring: ScoringRun, resume: Scores | None, path: Path | None) -> UnitScores:
    """Run the criterion.

    Raises:
        DataError: scores to resume are of something else.
        MissingGradientError: the criterion differentiates an operator that has no gradient.
    """
    context = scoring.context
    earlier = load_checkpoint(
        resume, path, scoring.criterion.name, lambda: scoring.fingerprint, context.network, context.example_count
    )
    checkpoint = None if path is None else Checkpoint(path, scoring.scores, {} if earlier is None else earlier.groups)
    try:
        return scoring.criterion(replace(context, resume_from=earlier, on_progress=checkpoint))
    except KeyboardInterrupt:
        if checkpoint is not None:
            checkpoint.write()
        raise
    except RuntimeError as failure:
        if not _is_of_backward_pass(failure):
            raise
        raise MissingGradientError(
            f"{context.network.title} can't be differentiated, as {scoring.criterion.name!r} requires ({failure}); "
            "register the gradient with torch.library.register_autograd, or rank by a criterion that needs no "
            "gradients, such as 'shapley', 'apoz' or 'l2'"
        ) from failure


def _is_of_backward_pass(failure: RuntimeError) -> bool:
    """Return whether torch's backward pass raised an error that is not one of memory."""
    names = {frame.name for frame in traceback.extract_tb(failure.__traceback__)}
    return "_engine_run_backward" in names and not isinstance(failure, torch.OutOfMemoryError)
