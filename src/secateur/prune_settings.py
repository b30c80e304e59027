"""Checks of the settings of `prune`, before any work is done."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from secateur.allocation.budget import has_time
from secateur.allocation.config import DEFAULTS, PruneConfig, check_allocation
from secateur.coupling.plan import Budget
from secateur.data.model_inputs import device_of
from secateur.errors import OptionError
from secateur.evaluation.channel_steps import channel_step
from secateur.evaluation.runtimes import check_runtime, runtime_of
from secateur.importance.score import check_scoring
from secateur.importance.scores import Scores
from secateur.pipeline import check_rounds
from secateur.recovery.repair import check_options, resolve_repairs


def check_settings(
    config: PruneConfig, keep: Budget, options: Mapping[str, Any], tuning: Mapping[str, Any], scores: Scores | None
) -> None:
    """Check the settings before any work is done.

    Raises:
        SecateurError: one of them can't be used.
    """
    if scores is None:
        check_scoring(config.by, options)
    else:
        _check_no_scoring(config, options, scores)
    if config.repair is not None:
        resolve_repairs(config.repair)
        check_options(tuning)
    check_allocation(config.allocation)
    check_rounds(config.rounds, keep)


def _check_no_scoring(config: PruneConfig, options: Mapping[str, Any], scores: Scores) -> None:
    """Check that nothing about scoring is asked for where there are scores.

    Raises:
        OptionError: a setting has no effect on scores that exist.
    """
    settings = {name: getattr(config, name) for name in ("by", "ablation", "rounds")}
    changed = [name for name, value in settings.items() if value != getattr(DEFAULTS, name)]
    names = [*(name for name in changed if (name, settings[name]) != ("by", scores.by)), *options]
    if names:
        raise OptionError(
            f"{', '.join(names)} would change how the network is scored, but scores= are given, by {scores.by!r}; "
            "leave one of them out"
        )


def check_device(model: nn.Module, config: PruneConfig, keep: Budget) -> None:
    """Check the device that the small network is for.

    Raises:
        NameMatchError: it is unknown.
        OptionError: its runtime, in which times are to be measured, is not installed.
    """
    channel_step(config.target, device_of(model))
    if has_time(keep):
        check_runtime(runtime_of(config.target))
