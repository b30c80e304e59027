"""Count the outcomes of damaged files, killed saves, full disks and code in files.

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
from rows import markdown_table

import secateur as sc
from damaged import Subject, outcome, subjects
from reliability.disks import full_disk_outcomes
from reliability.kills import kill_outcomes
from reliability.programs import program_outcomes

MOST_SECONDS = 20  # for one variant
Counts = collections.Counter[str]


class TooSlowError(BaseException):
    """A variant takes longer than `MOST_SECONDS`."""


def file_outcomes(folder: Path, variants: int, until: float) -> dict[str, Counts]:
    """Load damaged variants of each kind of file, and count the outcomes.

    Args:
        folder: a folder to write in.
        variants: the number of variants of each kind.
        until: the time of `time.monotonic` after which no variant is tried.
    """
    counts_by_kind = {}
    for subject in subjects(folder):
        undamaged = subject.path.read_bytes()
        expected = subject.use()[0]()
        counts: Counts = collections.Counter()
        for _, content in subject.variants(variants // 3, variants - variants // 3):
            if time.monotonic() > until:
                counts["not tried"] += 1
                continue
            counts[_outcome_within_limit(subject, content, expected)] += 1
        subject.path.write_bytes(undamaged)
        counts_by_kind[subject.kind] = counts
    return counts_by_kind


def _outcome_within_limit(subject: Subject, content: bytes, expected: Any) -> str:
    signal.alarm(MOST_SECONDS)
    try:
        result = outcome(subject, content, expected)
    except TooSlowError:
        result = "hangs"
    finally:
        signal.alarm(0)
    if result.startswith("raw, and"):
        return "raw, model changed"
    return "raw exception" if result.startswith("raw") else result


def _stop(*_: Any) -> None:
    raise TooSlowError


def counts_table(title: str, rows: dict[str, Counts]) -> str:
    """Return counts as a section with a table of Markdown."""
    columns = sorted({column for counts in rows.values() for column in counts})
    lines = [
        [name, *(str(counts[column]) for column in columns)]
        for name, counts in {**rows, "all": sum(rows.values(), collections.Counter())}.items()
    ]
    return f"## {title}\n\n{markdown_table(['', *columns], lines)}\n"


def main() -> None:
    """Run all experiments, and print their tables."""
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
        print(
            counts_table("Damaged and crafted files", file_outcomes(Path(folder), options.variants, until)), flush=True
        )
    with TemporaryDirectory() as folder:
        print(counts_table("Saves that are killed", kill_outcomes(Path(folder), until)), flush=True)
    with TemporaryDirectory() as folder:
        print(counts_table("Full disks", full_disk_outcomes(Path(folder))), flush=True)
    with TemporaryDirectory() as folder:
        print(counts_table("Code in saved programs", program_outcomes(Path(folder))), flush=True)


if __name__ == "__main__":
    main()
