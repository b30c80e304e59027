"""SmolLM2-135M with its calibration and test tokens, and what is measured on a network."""

import resource
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerator.language import load, perplexity
from torch import Tensor, nn

import secateur as sc

LENGTH, WINDOW = 256, 512
BATCH = 4
TRACED = 2  # sequences that the network is traced with
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Subject:
    """A language model, and tokens to prune it with and to judge it by.

    Args:
        model: the dense network.
        data: batches of calibration sequences.
        windows: test tokens (windows, length).
    """

    model: nn.Module
    data: list[dict[str, Tensor]]
    windows: Tensor

    @cached_property
    def units(self) -> sc.Network:
        """The network traced with feed-forward neurons and attention heads as units."""
        return sc.trace(self.model, {"input_ids": self.tokens[:TRACED]}, kinds=("neurons", "heads"))

    @cached_property
    def blocks(self) -> sc.Network:
        """The network traced with whole blocks as units."""
        return sc.trace(self.model, {"input_ids": self.tokens[:TRACED]}, kinds="blocks")

    @property
    def tokens(self) -> Tensor:
        """All calibration sequences. (sequences, length)"""
        return torch.cat([batch["input_ids"] for batch in self.data])

    @property
    def block_parameters(self) -> int:
        """The number of parameters of all blocks."""
        return sum(parameter.numel() for parameter in self.model.model.layers.parameters())

    def budget(self, removed: float) -> dict[str, float]:
        """The budget of a fraction of the blocks' parameters that are removed."""
        total = sum(parameter.numel() for parameter in self.model.parameters())
        return {"params": 1 - removed * self.block_parameters / total}


def build(folder: Path, sequences: int, test_tokens: int) -> Subject:
    """Load the model and its tokens from a folder."""
    model, calibration, test = load(folder)
    data = [{"input_ids": batch} for batch in calibration[: sequences * LENGTH].view(-1, LENGTH).split(BATCH)]
    return Subject(model, data, test[:test_tokens].view(-1, WINDOW))


def quality(model: nn.Module, windows: Tensor) -> Row:
    """The perplexity, and how many tokens one thread reads in a second of processor time."""
    start = time.process_time()
    figures: Row = dict(perplexity(model, windows))
    return figures | {"tokens_per_second": windows.numel() / (time.process_time() - start)}


def peak_bytes() -> int:
    """The largest number of bytes that this process has held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
