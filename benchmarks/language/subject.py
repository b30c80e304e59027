"""SmolLM2-135M with its calibration and test tokens, and measures of a network."""

import resource
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerator.language import load_smollm2, perplexity
from torch import Tensor, nn

import secateur as sc

LENGTH, WINDOW = 256, 512
BATCH = {"cpu": 4, "cuda": 16}  # sequences in a batch
TRACED = 2  # sequences that the network is traced with
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class LanguageSubject:
    """A language model, with tokens to prune it with and others to test it on.

    Args:
        model: the dense network.
        data: batches of calibration sequences.
        windows: test tokens, (windows, length).
    """

    model: nn.Module
    data: list[dict[str, Tensor]]
    windows: Tensor

    @property
    def device(self) -> torch.device:
        """The device of the model, the data and the windows."""
        return self.windows.device

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


def load_subject(folder: Path, sequences: int, test_tokens: int, device: str = "cpu") -> LanguageSubject:
    """Load the model and its tokens from a folder, onto a device."""
    model, calibration, test = load_smollm2(folder)
    tokens = calibration[: sequences * LENGTH].view(-1, LENGTH).to(device)
    windows = test[:test_tokens].view(-1, WINDOW).to(device)
    return LanguageSubject(model.to(device), [{"input_ids": batch} for batch in tokens.split(BATCH[device])], windows)


def measure_quality(model: nn.Module, windows: Tensor) -> Row:
    """Return the perplexity, and the number of tokens in a second, by the clock of `seconds_on`."""
    start = seconds_on(windows.device)
    figures: Row = dict(perplexity(model, windows))
    return figures | {"tokens_per_second": windows.numel() / (seconds_on(windows.device) - start)}


def seconds_on(device: torch.device) -> float:
    """Return the time: processor seconds on the CPU, or the wall clock after all kernels of an accelerator ended."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()


def peak_bytes(device: torch.device) -> int:
    """Return the peak of resident bytes of this process on the CPU, or of torch on an accelerator."""
    if device.type == "cpu":
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return torch.cuda.max_memory_allocated(device)
