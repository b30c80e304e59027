"""Distillation: short training of the cut network towards the dense network's outputs (Hinton et al. 2015)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.data.batch import Batch, concat_batches
from secateur.errors import TargetError
from secateur.evaluation.divergence import divergence
from secateur.evaluation.evaluate import output_divergences
from secateur.evaluation.losses import supervised
from secateur.evaluation.outputs import is_distribution, is_logits, is_no_class_score, main_output
from secateur.evaluation.targets import check_target
from secateur.graph.contexts import evaluation_mode, preserved, run_module, run_seeded
from secateur.recovery.training_steps import training_steps
from secateur.utils.collected_warnings import warn

LABELS = 0.1
LOOKS = 10
Augment = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class DistillationConfig:
    """The networks, examples and options of a distillation.

    Args:
        small: the cut network, which is changed in place.
        dense: the network that it should be like.
        cells: the examples.
        held_out: others, to stop by.
        options: steps, learning_rate, batch_size, temperature, augment.
        seed: for whatever is drawn.
        writes: whether the networks' code may write to their parameters.
    """

    small: nn.Module
    dense: nn.Module
    cells: Sequence[Batch]
    held_out: Sequence[Batch]
    options: Mapping[str, Any]
    seed: int = 0
    writes: bool = True


def distillation(output: Any, dense: Any, temperature: float = 2.0) -> Tensor:
    """Compute the distillation loss of each example. (examples,)

    For class scores the Kullback-Leibler divergence of softened distributions, times the square of the temperature
    (Hinton et al. 2015, section 2); for other outputs the divergence as it is measured.
    """
    if not is_logits(output) or is_no_class_score(dense) or is_distribution(dense):
        return divergence(output, dense)
    log_probabilities, dense_log_probabilities = (
        (main_output(outputs) / temperature).log_softmax(-1) for outputs in (output, dense)
    )
    losses = (
        F.kl_div(log_probabilities, dense_log_probabilities, log_target=True, reduction="none").sum(-1) * temperature**2
    )
    return losses.flatten(1).mean(1) if losses.dim() > 1 else losses


def distill(training: DistillationConfig) -> None:
    """Train in place with Adam and one cycle of the learning rate; keep the best state on the held-out examples.

    Batch norms keep their statistics, dropout is idle. Where there are labels that the default loss takes, a tenth of
    the loss is theirs; others are left out with a warning.

    Raises:
        DataError: the loss is NaN; the state is the best so far.
    """
    training = _with_usable_targets(training)
    steps, size = int(training.options.get("steps", 300)), int(training.options.get("batch_size", 64))
    rate = float(training.options.get("learning_rate", 1e-3))
    parameters = [parameter for parameter in training.small.parameters() if parameter.is_floating_point()]
    asked = [parameter.requires_grad for parameter in parameters]
    gradients = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
        parameter.grad = None
    try:
        with torch.enable_grad(), evaluation_mode(training.small):
            optimizer = torch.optim.Adam(parameters, rate)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
            _train(training, optimizer, schedule, steps, size)
    finally:
        for parameter, was, gradient in zip(parameters, asked, gradients, strict=True):
            parameter.requires_grad_(was)
            parameter.grad = gradient


def _with_usable_targets(training: DistillationConfig) -> DistillationConfig:
    """Drop the targets if the default loss does not accept them."""
    with preserved(training.dense, training.writes):
        outputs = [(cell, run_module(training.dense, cell)) for cell in training.cells[:1]]
    try:
        for cell, output in outputs:
            if cell.target is not None:
                check_target(output, cell.target)
    except TargetError as failure:
        warn(f"tune trains without targets: {failure}")
        return replace(training, cells=[cell.without_target() for cell in training.cells])
    return training


def _train(training: DistillationConfig, optimizer: Any, schedule: Any, steps: int, size: int) -> None:
    draws = torch.Generator().manual_seed(training.seed)
    best, state = _held_out_divergence(training), _copied(training.small)

    def loss_at(step: int) -> Tensor:
        batch = _augmented(sample_batch(training.cells, size, draws), training.options.get("augment"))
        return _loss(training, batch, training.seed + step)

    try:
        for step in training_steps("tune", optimizer, loss_at, lambda step: step >= steps, total=steps):
            schedule.step()
            if step % max(steps // LOOKS, 1) == 0 or step == steps:
                distance = _held_out_divergence(training)
                if distance < best:
                    best, state = distance, _copied(training.small)
    finally:
        training.small.load_state_dict(state)


def _held_out_divergence(training: DistillationConfig) -> float:
    return float(output_divergences(training.dense, training.small, training.held_out, training.writes).mean())


def _loss(training: DistillationConfig, batch: Batch, seed: int) -> Tensor:
    with preserved(training.dense, training.writes):
        dense_output = run_seeded(training.dense, batch, seed)
    output = run_seeded(training.small, batch, seed)
    return distillation_objective(output, dense_output, batch.target, float(training.options.get("temperature", 2.0)))


def distillation_objective(output: Any, dense: Any, target: Any, temperature: float = 2.0) -> Tensor:
    """Compute the training loss: the distance from the dense outputs, and a tenth of the labels' loss."""
    loss = distillation(output, dense, temperature).mean()
    if not isinstance(target, Tensor):
        return loss
    return (1 - LABELS) * loss + LABELS * supervised(output, target).mean()


def sample_batch(cells: Sequence[Batch], size: int, draws: torch.Generator) -> Batch:
    """Sample examples from cells whose inputs have one shape, in proportion to their sizes."""
    sizes = torch.tensor([float(cell.size or 1) for cell in cells])
    first = cells[int(torch.multinomial(sizes, 1, generator=draws))]
    same_shape = [cell for cell in cells if _input_forms(cell) == _input_forms(first)]
    if not first.is_divisible:
        return first
    owner = torch.multinomial(torch.tensor([float(cell.size or 1) for cell in same_shape]), size, True, generator=draws)
    samples = []
    for number in owner.unique().tolist():
        count = int((owner == number).sum())
        samples.append(
            same_shape[number].take(torch.randint(0, same_shape[number].size or 1, (count,), generator=draws))
        )
    return concat_batches(samples)


def _input_forms(cell: Batch) -> list[Any]:
    return [(tensor.shape[1:], tensor.dtype) for tensor in cell.tensors]


def _augmented(batch: Batch, augment: Augment | None) -> Batch:
    if augment is None:
        return batch
    if batch.kwargs:
        return Batch(batch.args, augment(dict(batch.kwargs)), batch.target)
    augmented = augment(batch.args[0] if len(batch.args) == 1 else batch.args)
    return Batch(augmented if isinstance(augmented, tuple) else (augmented,), {}, batch.target)


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
