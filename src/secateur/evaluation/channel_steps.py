"""Channels that the kernels of a device work on at once, and the numbers of units that fill them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from secateur.coupling.group import Group
from secateur.options import check_name

AUTO = "auto"
ANY = "any"
CPU_STEPS: Mapping[str, int] = {"AVX512": 16, "AVX2": 8, "DEFAULT": 8}
"""Channels in one block of a convolution kernel, of oneDNN and of onnxruntime alike, by the processor's vectors."""
FIXED: Mapping[str, tuple[int, str]] = {
    ANY: (1, "no device is planned for"),
    "avx512": (16, "blocks of 16 channels with AVX-512"),
    "avx2": (8, "blocks of 8 channels with AVX2"),
    "arm": (8, "blocks of 8 channels with NEON"),
    "cuda": (8, "tensor cores take multiples of 8"),
    "tensorrt": (8, "tensor cores take multiples of 8"),
    "mps": (8, "matrix units take multiples of 8"),
}
HOST = ("cpu", "onnxruntime")
TARGETS = (AUTO, *HOST, *FIXED)


@dataclass(frozen=True)
class ChannelStep:
    """The number of channels that a kernel of a device works on at once.

    Args:
        target: the device, as in `TARGETS`.
        size: channels in a step; 1 where any number is as good.
        reason: the reason, in words.
    """

    target: str
    size: int
    reason: str


def channel_step(target: str, device: torch.device) -> ChannelStep:
    """Return the step of a device.

    Args:
        target: its name; "auto" for the device that the network is on.
        device: the device of the network.

    Raises:
        NameMatchError: there is no such target.

    Examples:
        >>> channel_step("cuda", torch.device("cpu"))
        ChannelStep(target='cuda', size=8, reason='tensor cores take multiples of 8')
    """
    check_name(target, TARGETS, f"target={target!r} is unknown", shows=False)
    name = target if target != AUTO else device.type if device.type in TARGETS else ANY
    if name in FIXED:
        return ChannelStep(name, *FIXED[name])
    capability = torch.backends.cpu.get_cpu_capability()
    size = CPU_STEPS.get(capability, CPU_STEPS["DEFAULT"])
    return ChannelStep(name, size, f"this processor ({capability}) works on blocks of {size} channels")


def preferred_multiple(group: Group, step: int) -> int:
    """Return the number of which multiples of a group's units fill a device's kernels.

    It is 1 in groups of a single step or less: a narrow network would have no size to choose but its own, and layers
    that read fewer channels take less time on some kernels even so. Only a residual width of that size stays whole, as
    all layers of its stage read or produce it, and some runtimes have slow kernels for each that it does not fill.

    Args:
        group: the group.
        step: channels in a step.

    Examples:
        >>> import secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 40, 3), torch.nn.ReLU(), torch.nn.Conv2d(40, 8, 3))
        >>> preferred_multiple(sc.trace(model, torch.randn(2, 3, 8, 8)).groups[0], 16)
        16
    """
    units = step // math.gcd(step, entries_per_unit(group))
    if group.size <= units:
        return group.size if group.kind == "residual" else 1
    return units


def entries_per_unit(group: Group) -> int:
    """Return the number of channels of a layer that one unit is: 1 for most, the width of a head for heads."""
    counts = [int((member.units >= group.offset).sum()) // group.size for member in group.members if member.is_producer]
    return max(min(counts, default=1), 1)
