"""Strong scaling: one job by one and by two processes, and what that lets expect of more.

python -m benchmarks shapley.processes
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INPUTS = ["--model", "shapley.processes:model", "--data", "shapley.processes:data"]
WORDS = ["-m", "secateur", "score", *INPUTS, "--coalitions"]
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
LITTLE, MUCH = "200", "40000"
UP_TO = (1, 2, 4, 8, 16, 32, 64)


def model() -> object:
    from secateur import demo  # noqa: PLC0415 (for the command line alone)

    return demo.network()


def data() -> object:
    from secateur import demo  # noqa: PLC0415

    return demo.calibration()[:4]


def seconds(processes: int, coalitions: str) -> float:
    """How long a job takes from its start to its end."""
    with tempfile.TemporaryDirectory() as folder:
        launch = [*LAUNCH, str(processes)] if processes > 1 else []
        command = [sys.executable, *launch, *WORDS, coalitions, "--only", "layer2.*", "--out", folder]
        start = time.perf_counter()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, capture_output=True, env=environment, cwd=Path(__file__).parents[1])
        return time.perf_counter() - start


def main() -> None:
    little, much = seconds(1, LITTLE), seconds(1, MUCH)
    two = seconds(2, MUCH)
    print(f"one process: {little:.1f} s for {LITTLE} coalitions of each group, {much:.1f} s for {MUCH}")
    print(f"two processes: {two:.1f} s for {MUCH}, {much / two:.2f} times as fast")
    serial = max(2 * two - much, 0.0)  # two = serial + (much - serial) / 2
    print(f"serial part by that: {serial:.1f} s (Amdahl: start, tracing, what each process does for itself)")
    for count in UP_TO:
        expected = serial + (much - serial) / count
        kind = "measured" if count <= 2 else "projected, not measured"
        print(f"{count:3d} processes: {much / expected:5.2f} times as fast ({kind})")


if __name__ == "__main__":
    main()
