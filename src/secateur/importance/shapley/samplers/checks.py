"""Checks of samplers that users define."""

from typing import Any

import torch
from torch import Tensor

from secateur.errors import OptionError
from secateur.importance.shapley.samplers.base import CoalitionDesign, Sampler
from secateur.utils.failure_text import failure_text


def checked_sampler(label: str, sampler: Sampler) -> Sampler:
    """Return a sampler whose designs are checked.

    Args:
        label: the sampler's name, for messages.
        sampler: the user's function.

    Returns:
        The same sampler; it raises an OptionError where it fails, or where its coalitions or shares have a wrong type
        or shape.
    """

    def design(players: int, generator: torch.Generator) -> CoalitionDesign:
        try:
            coalition_design = sampler(players, generator)
        except Exception as failure:
            raise OptionError(
                f"the sampler {label} fails for {players} players with {failure_text(failure)}; it is "
                "called with the number of players and a torch.Generator"
            ) from failure
        _check_design(label, coalition_design, players)

        def shares(surplus: Tensor) -> Tensor:
            return _checked_shares(label, coalition_design, surplus)

        return CoalitionDesign(coalition_design.coalitions, shares, coalition_design.free)

    return design


def _check_design(label: str, design: Any, players: int) -> None:
    if not isinstance(design, CoalitionDesign):
        raise OptionError(f"the sampler {label} returns {type(design).__name__}; return a CoalitionDesign")
    members = design.coalitions
    if not isinstance(members, Tensor) or members.dtype != torch.bool or members.shape[1:] != (players,):
        raise OptionError(
            f"the sampler {label} gives coalitions that are {_value_text(members)}; give booleans of shape (coalitions,"
            f" players), here (coalitions, {players})"
        )


def _checked_shares(label: str, design: CoalitionDesign, surplus: Tensor) -> Tensor:
    expected_shape = (design.coalitions.shape[1], surplus.shape[1])
    try:
        shares = design.shares(surplus)
    except Exception as failure:
        raise OptionError(
            f"shares of the sampler {label} fails with {failure_text(failure)}; it is called with the "
            f"surplus of shape {tuple(surplus.shape)}, (coalitions, examples)"
        ) from failure
    if not isinstance(shares, Tensor) or shares.shape != expected_shape:
        raise OptionError(
            f"shares of the sampler {label} returns what is {_value_text(shares)}; return a tensor (players, examples),"
            f" here {expected_shape}"
        )
    return shares


def _value_text(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return f"of type {type(value).__name__}"
