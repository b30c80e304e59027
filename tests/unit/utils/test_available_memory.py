"""Free memory is the least of what the machine has, what a container allows, and what the process is limited to."""

import sys
from pathlib import Path

import pytest
import torch

from secateur.utils.available_memory import available_bytes

CPU = torch.device("cpu")
MIB = 1 << 20
MACHINE = {"proc/meminfo": "MemTotal:  32768000 kB\nMemAvailable:  16777216 kB\n"}
AVAILABLE = 16_777_216 * 1024
UNIFIED = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
LIMITS = (
    "Limit                     Soft Limit           Hard Limit           Units     \n"
    "Max data size             unlimited            unlimited            bytes     \n"
    "Max address space         {}            unlimited            bytes     \n"
)


def make_root(folder: Path, files: dict[str, str]) -> Path:
    """Write files below a folder that stands for the root of a file system."""
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def group(folder: str, limit: int | str, current: int, active: int = 0, inactive: int = 0) -> dict[str, str]:
    """Return the files of a group of the second version, with numbers in MiB."""
    most = str(limit * MIB) if isinstance(limit, int) else limit
    statistics = f"anon 5\nfile 9\ninactive_file {inactive * MIB}\nactive_file {active * MIB}\n"
    values = {"memory.max": most, "memory.current": str(current * MIB), "memory.stat": statistics}
    return {f"{folder}/{name}": f"{value}\n" for name, value in values.items()}


def test_machine_without_limits(tmp_path: Path) -> None:
    """The machine's free memory counts where nothing else is said."""
    assert available_bytes(CPU, make_root(tmp_path, MACHINE)) == AVAILABLE


def test_memory_is_unknown_without_these_files(tmp_path: Path) -> None:
    """A system without these files, and a device without memory, say nothing."""
    assert available_bytes(CPU, tmp_path) is None
    assert available_bytes(torch.device("meta"), make_root(tmp_path, MACHINE)) is None


def test_container_sees_its_group_as_the_top_one(tmp_path: Path) -> None:
    """A container of 4,096 MiB has what is not in use, and its pages of files."""
    files = MACHINE | {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": UNIFIED}
    root = make_root(tmp_path, files | group("sys/fs/cgroup", 4096, current=3000, active=100, inactive=400))
    assert available_bytes(CPU, root) == (4096 - 3000 + 500) * MIB


def test_limits_of_all_levels(tmp_path: Path) -> None:
    """The group above may have less left than that of the process, and one without a limit says nothing."""
    files = MACHINE | {"proc/self/cgroup": "0::/user.slice/job/step\n", "proc/self/mountinfo": UNIFIED}
    files |= group("sys/fs/cgroup/user.slice/job/step", "max", current=50)
    files |= group("sys/fs/cgroup/user.slice/job", 900, current=100)
    files |= group("sys/fs/cgroup/user.slice", 2000, current=1700)
    assert available_bytes(CPU, make_root(tmp_path, files)) == 300 * MIB


def test_first_version_mounted_below_its_group(tmp_path: Path) -> None:
    """The hierarchy of memory alone counts; its path is told from the host's top, which the container does not see."""
    mounts = (
        "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "35 31 0:32 /docker/3f2a /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    )
    files = MACHINE | {
        "proc/self/cgroup": "4:memory:/docker/3f2a/inner\n2:cpu,cpuacct:/docker/3f2a\n0::/\n",
        "proc/self/mountinfo": mounts,
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{4000 * MIB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{1000 * MIB}\n",
        "sys/fs/cgroup/memory/inner/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/inner/memory.usage_in_bytes": f"{10 * MIB}\n",
        "sys/fs/cgroup/memory/inner/memory.stat": f"inactive_file 7\ntotal_inactive_file {MIB}\n",
    }
    assert available_bytes(CPU, make_root(tmp_path, files)) == 3000 * MIB


@pytest.mark.parametrize("path", ["/elsewhere/deeper", "/../../outside"])
def test_group_that_is_not_below_the_mounted_one(tmp_path: Path, path: str) -> None:
    """A path that the container can't see is taken for its top group."""
    files = MACHINE | {
        "proc/self/cgroup": f"0::{path}\n",
        "proc/self/mountinfo": "29 23 0:26 /pod /sys/fs/with\\040space rw - cgroup2 cgroup2 rw\n",
    }
    root = make_root(tmp_path, files | group("sys/fs/with space", 500, current=100))
    assert available_bytes(CPU, root) == 400 * MIB


def test_a_group_over_its_limit_has_no_memory(tmp_path: Path) -> None:
    """A group that is over its limit has no memory, not less than none."""
    files = MACHINE | {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": UNIFIED}
    assert available_bytes(CPU, make_root(tmp_path, files | group("sys/fs/cgroup", 100, current=130))) == 0


@pytest.mark.parametrize(("limit", "expected"), [("unlimited", AVAILABLE), (str(2000 * MIB), 1500 * MIB)])
def test_limit_of_addresses(tmp_path: Path, limit: str, expected: int) -> None:
    """`ulimit -v` counts addresses, of which the process has some already."""
    files = MACHINE | {"proc/self/limits": LIMITS.format(limit), "proc/self/status": f"VmSize:\t{500 * 1024} kB\n"}
    assert available_bytes(CPU, make_root(tmp_path, files)) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is read from Linux's files")
def test_limit_of_this_process() -> None:
    """A limit that this process sets itself is kept to."""
    import resource  # noqa: PLC0415 (missing on other systems)

    room = available_bytes(CPU)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    status = Path("/proc/self/status").read_text()
    size = 1024 * int(status.partition("VmSize:")[2].split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (size + 256 * MIB, hard))
    try:
        limited = available_bytes(CPU)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert room is not None and limited is not None
    assert 128 * MIB < limited <= min(256 * MIB, room)
