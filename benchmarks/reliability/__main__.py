"""Count what comes of damaged files, killed saves, full disks and code in files.

    python -m benchmarks reliability [--variants 300] [--seconds 600]

Runs for two minutes on one core, and for no more than `--seconds`. Damaged and crafted files are those of
tests/support/damaged.py, of every kind that Secateur reads. With another version's `src` first on PYTHONPATH it counts
for that version.
"""

import argparse
import collections
import signal
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import secateur as sc
from damaged import Subject, outcome, subjects
from reliability.disks import full_disks
from reliability.kills import kills
from reliability.programs import programs

MOST_SECONDS = 20  # for one variant
Counts = collections.Counter[str]


class TooSlowError(BaseException):
    """A variant takes longer than any should."""


def files(folder: Path, variants: int, until: float) -> dict[str, Counts]:
    """What came of the variants of each kind of file."""
    found = {}
    for subject in subjects(folder):
        whole = subject.path.read_bytes()
        expected = subject.use()[0]()
        counts: Counts = collections.Counter()
        for _, content in subject.variants(variants // 3, variants - variants // 3):
            if time.monotonic() > until:
                counts["not tried"] += 1
                continue
            counts[_timed(subject, content, expected)] += 1
        subject.path.write_bytes(whole)
        found[subject.kind] = counts
    return found


def _timed(subject: Subject, content: bytes, expected: Any) -> str:
    signal.alarm(MOST_SECONDS)
    try:
        said = outcome(subject, content, expected)
    except TooSlowError:
        said = "hangs"
    finally:
        signal.alarm(0)
    if said.startswith("raw, and"):
        return "raw, model changed"
    return "raw exception" if said.startswith("raw") else said


def _stop(*_: Any) -> None:
    raise TooSlowError


def table(title: str, rows: dict[str, Counts]) -> str:
    """Counts as a table of Markdown."""
    columns = sorted({column for counts in rows.values() for column in counts})
    lines = [f"## {title}", "", f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, counts in {**rows, "all": sum(rows.values(), collections.Counter())}.items():
        lines.append(f"| {name} | {' | '.join(str(counts[column]) for column in columns)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=300, help="of each kind of file, at most")
    parser.add_argument("--seconds", type=float, default=600, help="after which no further variant is tried")
    options = parser.parse_args()
    until = time.monotonic() + options.seconds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _stop)
    print(f"# secateur {sc.__version__}, torch {torch.__version__}\n")
    with TemporaryDirectory() as folder:
        print(table("Damaged and crafted files", files(Path(folder), options.variants, until)), flush=True)
    with TemporaryDirectory() as folder:
        print(table("Saves that are killed", kills(Path(folder), until)), flush=True)
    with TemporaryDirectory() as folder:
        print(table("Full disks", full_disks(Path(folder))), flush=True)
    with TemporaryDirectory() as folder:
        print(table("Code in saved programs", programs(Path(folder))), flush=True)


if __name__ == "__main__":
    main()
