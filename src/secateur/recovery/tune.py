"""A short training of the cut network towards the dense one: the features that its last layer reads, or its outputs.

The dense network answers any input, so that no labels are needed, and images that are flipped and shifted are as good
as others where the dense network's outputs do not depend on it. Distillation of outputs is by Hinton et al. (2015);
features that the last layer reads, from few examples without labels, are the targets of Wang et al. (2022) and Wang and
Wu (2023), under which the last layer itself stays as it is. The learning rate, the number of steps and whether images
are changed are found by examples held out.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.evaluation.dense_outputs import DenseOutputs
from secateur.evaluation.evaluate import output_divergences
from secateur.evaluation.losses import supervised_losses
from secateur.evaluation.outputs import with_named_scores
from secateur.graph.contexts import evaluation_mode, isolated_evaluation, run_seeded
from secateur.recovery.distillation import LABELS, BatchSampler, distillation_objective
from secateur.recovery.head_features import feature_error, recorded_inputs
from secateur.recovery.input_augmentation import InputAugmentation, augmentation_of, augmentations_of
from secateur.recovery.training_steps import trainable_parameters, training_steps
from secateur.recovery.training_task import SLOWER, TrainingSchedule, TrainingTask, with_usable_targets
from secateur.recovery.weight_average import WeightAverage

STEPS = 300
LOOK = 50  # steps between two looks at the held-out examples
RATE = 1e-3
SLOWDOWNS = 3  # a training ends where it gains nothing at the slowest rate
LEAST_LOOKS = 6


def tune(task: TrainingTask) -> TrainingSchedule:
    """Train in place with Adam; keep the average of the weights that is nearest on the held-out examples.

    Batch norms keep their statistics, dropout is idle. Where there are labels that the default loss takes, a tenth of
    the loss is theirs; others are left out with a warning.

    Returns:
        How the training ran.

    Raises:
        DataError: the loss is NaN; the weights are the best so far.
    """
    task = with_usable_targets(task)
    with torch.enable_grad(), evaluation_mode(task.small), trainable_parameters(task.small) as parameters:
        if task.schedule is not None:
            return TuneTraining(task, parameters, augmentation_of(task, task.schedule)).repeat(task.schedule)
        return _best_of([TuneTraining(task, parameters, augmentation) for augmentation in augmentations_of(task)])


def _best_of(trainings: Sequence["TuneTraining"]) -> TrainingSchedule:
    """Run trainings from the same weights, keep those that are nearest on the held-out examples, and return how."""
    best = trainings[0]
    try:
        for training in trainings:
            training.on_trial()
            best = min(best, training, key=lambda candidate: candidate.distance)
    finally:
        best.load()
    return best.schedule


class TuneTraining:
    """A training of a cut network.

    Args:
        task: the networks and examples.
        parameters: the weights, which require gradients.
        augment: changes of the inputs.
    """

    def __init__(self, task: TrainingTask, parameters: Sequence[nn.Parameter], augment: InputAugmentation) -> None:
        self.task, self.options = task, task.options
        self.rate = float(self.options.get("learning_rate", RATE))
        self.steps = int(self.options.get("steps", STEPS))
        self.weights = [parameter.detach() for parameter in parameters]
        self.optimizer = torch.optim.Adam(parameters, self.rate)
        self.average = WeightAverage(self.weights)
        self.augment = augment
        self.dense_outputs = DenseOutputs(task.dense, task.writes)
        self.sampler = BatchSampler(task.microbatches)
        self.draws = torch.Generator().manual_seed(task.seed)
        self.slowdowns, self.restarted = 0, 0  # the number of slower rates so far, and the step at the last one
        self.distance = math.inf  # on the held-out examples, of the state that is kept
        self.label_weight: float | None = None  # beside errors of features; known after the first step
        self.state = [tensor.clone() for tensor in self.weights]
        self.schedule = TrainingSchedule(self.rate, (), str(self.augment), "outputs")

    def on_trial(self) -> None:
        """Train until the held-out examples gain nothing more, at slower and slower rates; the weights come back."""
        start = self.state
        self.distance = self._held_out_divergence()
        looks = max(math.ceil(self.steps / LOOK), min(self.steps, LEAST_LOOKS))
        try:
            for step in self._train(self.steps):
                if step * looks // self.steps > (step - 1) * looks // self.steps:
                    self._look(step)
        finally:
            self._load(start)

    def load(self) -> None:
        """Give the state that is kept to the network."""
        self._load(self.state)

    def repeat(self, schedule: TrainingSchedule) -> TrainingSchedule:
        """Train by a schedule that was found on trial, and keep the average of the weights."""
        try:
            for self.rate, steps in zip(schedule.rates, schedule.steps, strict=True):
                for _ in self._train(steps):
                    pass
                self._restart(self.average.values)
            self.state = self.average.values
        finally:
            self.load()
        return schedule

    def _train(self, steps: int) -> Iterator[int]:
        """Train step by step."""

        def is_finished(step: int) -> bool:
            return step >= steps or self.slowdowns > SLOWDOWNS or self.task.is_time_up()

        def rate_at(_: int) -> float:
            return self.rate

        for step in training_steps(
            "tune", self.optimizer, self._loss, is_finished, learning_rate_at=rate_at, total=steps
        ):
            self.average.update()
            yield step

    def _look(self, step: int) -> None:
        """Compare the averaged weights on the held-out examples; go back and slow down where they are no better."""
        with self.average.swapped_in():
            distance = self._held_out_divergence()
            if distance < self.distance:
                self.distance = distance
                self.state = [tensor.clone() for tensor in self.weights]
                earlier = (*self.schedule.steps, *[0] * self.slowdowns)[: self.slowdowns]
                self.schedule = replace(self.schedule, steps=(*earlier, step - self.restarted))
                return
        self.slowdowns += 1
        self.rate /= SLOWER
        self.restarted = step
        self._restart(self.state)

    def _restart(self, weights: Sequence[Tensor]) -> None:
        """Go on from these weights, with a new average and a new state of the optimizer."""
        self._load(weights)
        self.average.restart()
        self.optimizer.state.clear()

    def _loss(self, step: int) -> Tensor:
        """Return the loss of a batch of examples: the error of the last features, or the distance of the outputs."""
        task, seed = self.task, self.task.seed + step
        size = int(self.options.get("batch_size", 64))
        batch = self.augment(self.sampler.sample(size, self.draws), self.draws)
        dense_path, small_path = (None, None) if task.head is None else (task.head.dense, task.head.small)
        with isolated_evaluation(task.dense, task.writes), recorded_inputs(task.dense, dense_path) as dense_features:
            dense_output = run_seeded(task.dense, batch, seed)
        with recorded_inputs(task.small, small_path) as features:
            output = run_seeded(task.small, batch, seed)
        has_scores = batch.has_token_scores
        if not features:
            temperature = float(self.options.get("temperature", task.temperature))
            scores, dense_scores = (with_named_scores(value, has_scores) for value in (output, dense_output))
            return distillation_objective(scores, dense_scores, batch.target, temperature)
        self.schedule = replace(self.schedule, targets="last features")
        errors = torch.stack([feature_error(*pair) for pair in zip(features, dense_features, strict=True)]).sum()
        return self._with_labels(errors, with_named_scores(output, has_scores), batch.target)

    def _with_labels(self, errors: Tensor, output: Any, target: Any) -> Tensor:
        """Add the loss of labels, if there are any, to the errors of features: at first they are a tenth of the sum."""
        if not isinstance(target, Tensor):
            return errors
        loss = supervised_losses(output, target).mean()
        if self.label_weight is None:
            ratio = errors.detach() / loss.detach().clamp_min(torch.finfo(loss.dtype).eps)
            self.label_weight = float(ratio) * LABELS / (1 - LABELS)
        return errors + self.label_weight * loss

    def _held_out_divergence(self) -> float:
        task = self.task
        distances = output_divergences(self.dense_outputs, task.small, task.held_out, task.writes, task.temperature)
        return float(distances.mean())

    def _load(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for tensor, value in zip(self.weights, values, strict=True):
                tensor.copy_(value)
