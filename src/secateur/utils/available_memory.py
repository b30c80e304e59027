"""The memory that is free on a device."""

from pathlib import Path

import torch

from secateur.utils.memory_limits import address_room, group_room, kibibytes

ROOT = Path("/")


def available_bytes(device: torch.device, root: Path = ROOT) -> int | None:
    """Return the bytes that new tensors can take on a device, or None where the system does not say.

    On the processor this is the least of what the machine has free, what the control groups of the process allow (the
    limit of a container), and the limit of its address space.

    Args:
        device: the device.
        root: the root of the file system, with the folders `proc` and `sys`.

    Examples:
        >>> available_bytes(torch.device("meta")) is None
        True
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    of_system = (kibibytes(root / "proc/meminfo", "MemAvailable"), address_room(root))
    rooms = [*(room for room in of_system if room is not None), *group_room(root)]
    return max(min(rooms), 0) if rooms else None
