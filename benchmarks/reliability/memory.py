"""Measure by how much each criterion exceeds its memory limit, at the smallest limit that works and above.

    python -m benchmarks reliability.memory

Runs for half a minute on one core. Bytes are those of tests/support/live_bytes.py: all tensors made by the
call that are alive at one time. With another version's `src` first on PYTHONPATH it measures that version.
"""

import re
from typing import Any

import torch

import secateur as sc
from live_bytes import LiveBytes
from memory_subject import OPTIONS, convolutions

ABOVE = (1.0, 1.25, 2.0)
MOST_REFUSALS = 10


def smallest_limit(options: dict[str, Any]) -> int:
    """Return the smallest limit that works, read from the errors; 0 where the criterion takes no limit."""
    network, data = convolutions()
    limit = 1
    for _ in range(MOST_REFUSALS):
        try:
            sc.score(network, data, memory=limit, progress=False, **options)
        except sc.SecateurError as refusal:
            needed = re.search(r"one step needs ([\d,]+)", str(refusal))
            if needed is None:
                return 0
            limit = int(needed[1].replace(",", ""))
        else:
            return limit
    raise RuntimeError(f"{options} is refused at limits that its own refusals name")


def memory_row(name: str) -> str:
    """Return a criterion's limit, and by how much it is exceeded, as a row of Markdown."""
    network, data = convolutions()
    options = {"by": name, **OPTIONS[name]}
    least = smallest_limit(options)
    if least == 0:
        with LiveBytes() as live:
            sc.score(network, data, progress=False, **options)
        return f"| {name} | no limit | {live.peak / 1e6:.1f} MB |" + " |" * (len(ABOVE) - 1)
    exceeded = []
    for share in ABOVE:
        with LiveBytes() as live:
            sc.score(network, data, memory=int(share * least), progress=False, **options)
        exceeded.append(f"{live.peak / int(share * least) - 1:+.0%}")
    return f"| {name} | {least / 1e6:.2f} MB | {' | '.join(exceeded)} |"


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"# secateur {sc.__version__}, torch {torch.__version__}: peak beyond the limit\n")
    print(f"| criterion | smallest limit | {' | '.join(f'at {share:g} times it' for share in ABOVE)} |")
    print(f"|---|{'--:|' * (len(ABOVE) + 1)}")
    for name in OPTIONS:
        print(memory_row(name), flush=True)


if __name__ == "__main__":
    main()
