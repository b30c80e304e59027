"""Distillation of a smaller network, as other methods are followed by it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Distillation:
    """The settings of a training towards the dense network's outputs: Adam, with one cycle of the learning rate.

    Args:
        temperature: of both networks' outputs.
        steps: the number of steps.
        learning_rate: the highest one.
        batch_size: the number of images of each step, which are drawn with replacement.
    """

    temperature: float
    steps: int = 300
    learning_rate: float = 1e-3
    batch_size: int = 64

    def train(
        self,
        student: nn.Module,
        dense: nn.Module,
        images: Tensor,
        change_images: Callable[[Tensor], Tensor],
        draws: torch.Generator,
    ) -> nn.Module:
        """Train a network in place, and return it in evaluation mode.

        Args:
            student: the network.
            dense: the dense network.
            images: images without labels.
            change_images: a function that returns flipped and shifted images.
            draws: the random generator of the images.
        """
        optimizer = torch.optim.Adam(student.parameters(), self.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=self.steps)
        student.train()
        for _ in range(self.steps):
            batch = change_images(images[torch.randint(len(images), (self.batch_size,), generator=draws)])
            with torch.no_grad():
                target = (dense(batch) / self.temperature).log_softmax(1)
            output = (student(batch) / self.temperature).log_softmax(1)
            loss = F.kl_div(output, target, log_target=True, reduction="batchmean") * self.temperature**2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return student.eval()
