"""Accelerators, of whatever kind the machine has."""

import torch


def synchronize_accelerator() -> None:
    """Wait until the accelerator has done all that was launched, so that a clock can be read; on a CPU do nothing."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
