"""Pruning while a network is trained: a schedule for a training loop of your own, and a loop that needs none."""

from secateur.recovery.distillation import distillation
from secateur.training.method import TrainingMethod
from secateur.training.prune_while_training import prune_while_training
from secateur.training.taylor_schedule import TaylorSchedule

__all__ = ["TaylorSchedule", "TrainingMethod", "distillation", "prune_while_training"]
