"""The memory that a process may still take on Linux: by its control groups (containers) and by its own limits.

Containers, batch systems and systemd give a process less memory than the machine has. The system ends a process that
exceeds this, and `MemAvailable` does not show it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

KIB = 1024
ADDRESS_SPACE = "Max address space"
ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class GroupFiles:
    """The names of a control group's files.

    Args:
        limit: has the largest number of bytes, or "max".
        usage: has the bytes in use, pages of files among them.
        file_pages: in `memory.stat`, the pages of files, which the system drops before it ends a process.
    """

    limit: str
    usage: str
    file_pages: tuple[str, ...]


VERSIONS = {
    "cgroup2": GroupFiles("memory.max", "memory.current", ("active_file", "inactive_file")),
    "cgroup": GroupFiles(
        "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file")
    ),
}


def group_room(root: Path) -> Iterator[int]:
    """Yield the bytes that each control group above this process has left, of those that have a limit.

    As in `MemAvailable`, pages of files count as free, because they are dropped when memory is short. So do pages of
    weights that are mapped into memory.

    Args:
        root: the root of the file system.
    """
    for version, folder, top in _group_folders(root):
        files = VERSIONS[version]
        for level in (folder, *folder.parents):
            limit, usage = (_whole_number(_system_text(level / name)) for name in (files.limit, files.usage))
            if limit is not None and usage is not None:
                statistics = dict(line.partition(" ")[::2] for line in _system_text(level / "memory.stat").splitlines())
                yield limit - usage + sum(_whole_number(statistics.get(name, "")) or 0 for name in files.file_pages)
            if level == top:
                break


def address_room(root: Path) -> int | None:
    """Return the bytes of addresses that this process has left (`ulimit -v`), or None without such a limit.

    Args:
        root: the root of the file system.
    """
    limits = {line[:25].strip(): line[25:].split() for line in _system_text(root / "proc/self/limits").splitlines()}
    limit = _whole_number(next(iter(limits.get(ADDRESS_SPACE, [])), ""))
    size = kibibytes(root / "proc/self/status", "VmSize")
    return None if limit is None or size is None else limit - size


def kibibytes(file: Path, name: str) -> int | None:
    """Return a line of a file such as /proc/meminfo in bytes, or None where it is missing.

    Args:
        file: with lines of a name, a colon, and a number of kibibytes.
        name: the line's.
    """
    lines = (line.partition(":") for line in _system_text(file).splitlines())
    amount = next((number.split()[0] for key, _, number in lines if key == name), "")
    number = _whole_number(amount)
    return None if number is None else KIB * number


def _group_folders(root: Path) -> Iterator[tuple[str, Path, Path]]:
    """Yield the version of each hierarchy that limits memory, the folder of this process's group, and the top one."""
    paths = dict[str, str]()
    for line in _system_text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            paths["cgroup2"] = path
        elif "memory" in controllers.split(","):
            paths["cgroup"] = path
    for line in _system_text(root / "proc/self/mountinfo").splitlines():
        fields, _, about = line.partition(" - ")
        version, _, options = about.split(" ", 2)
        is_memory = version == "cgroup2" or (version == "cgroup" and "memory" in options.split(","))
        if is_memory and version in paths:
            mount_root, point = (_unescape(field) for field in fields.split()[3:5])
            top = root / point.lstrip("/")
            yield version, top / _below(paths[version], mount_root), top


def _below(path: str, mount_root: str) -> PurePosixPath:
    """Return the path of a group below the one that is mounted; a container sees its own group as the top one."""
    group = PurePosixPath(path)
    is_below = group.is_relative_to(mount_root) and ".." not in group.parts
    return group.relative_to(mount_root) if is_below else PurePosixPath()


def _unescape(field: str) -> str:
    return ESCAPED.sub(lambda code: chr(int(code[1], 8)), field)


def _system_text(file: Path) -> str:
    """Return the text of a file of the system, "" where there is none, or where this process may not read it."""
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _whole_number(text: str) -> int | None:
    """Return a number of a file, or None for a word such as "max" and "unlimited"."""
    return int(text) if text.strip().isdigit() else None
