"""The steps of a training: the one loop that all trainings run, and the parameters that they change."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from secateur.errors import DataError
from secateur.utils.progress import counted


def training_steps(
    stage: str,
    optimizer: torch.optim.Optimizer,
    loss_at: Callable[[int], Tensor],
    is_finished: Callable[[int], bool],
    *,
    learning_rate_at: Callable[[int], float] | None = None,
    first: int = 0,
    total: int | None = None,
) -> Iterator[int]:
    """Train step by step, and yield the number of steps after each, for whatever the caller does in between.

    Args:
        stage: the name of the training, for messages and the display of progress.
        optimizer: the optimizer.
        loss_at: returns the loss of a step by its number, counted from 1, with a gradient.
        is_finished: whether the training ends after so many steps.
        learning_rate_at: returns the learning rate after so many steps; by default the optimizer's own.
        first: the number of steps that were made before.
        total: the number of all steps, for the display of progress; None where it is unknown.

    Raises:
        DataError: The loss is NaN or infinite; the weights are those before this step.

    Examples:
        >>> weight = torch.nn.Parameter(torch.tensor(1.0))
        >>> optimizer = torch.optim.SGD([weight], 0.25)
        >>> steps = training_steps("halving", optimizer, lambda step: weight.square(), lambda steps: steps >= 3)
        >>> list(steps), weight.item()
        ([1, 2, 3], 0.125)
    """
    with counted(stage, None if total is None else total - first) as bar:
        for step in itertools.count(first):
            if is_finished(step):
                return
            if learning_rate_at is not None:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate_at(step)
            loss = loss_at(step + 1)
            if not bool(torch.isfinite(loss)):
                value = float(loss.detach())
                raise DataError(f"{stage}: the loss is {value} at step {step + 1}; lower the learning rate")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.advance()
            yield step + 1


@contextmanager
def trainable_parameters(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Let all floating-point parameters require gradients; restore their flags and gradients on leaving."""
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    old_states = [(parameter.requires_grad, parameter.grad) for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
            parameter.grad = None
        yield parameters
    finally:
        for parameter, (requires_grad, gradient) in zip(parameters, old_states, strict=True):
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient
