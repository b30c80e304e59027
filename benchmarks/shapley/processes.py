"""One job by one and by two processes: the processor time that is divided between them, and the time that is not.

    python -m benchmarks shapley.processes [--coalitions 40000]

Processor time does not count what other programs take, nor waiting for the other process.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
STAGES_OF_WORK = ("import", "trace", "blocks", "exchange", "rest")
UP_TO = (1, 2, 4, 8, 16, 32, 64)


def work(coalitions: int) -> dict[str, float]:
    """Score three groups of the demo's network as one of the processes; return the processor seconds of each stage."""
    start = time.process_time()
    import torch  # noqa: PLC0415 (its time is measured)

    import secateur as sc  # noqa: PLC0415
    from secateur import demo  # noqa: PLC0415
    from secateur.importance.shapley import estimate  # noqa: PLC0415
    from secateur.importance.shapley.control_variate import ControlVariate  # noqa: PLC0415
    from secateur.utils.process_groups import shared_processes  # noqa: PLC0415

    torch.set_num_threads(1)
    seconds = {"import": time.process_time() - start}
    blocks, rounds = Clock(ControlVariate.sample), Clock(estimate.map_sharded)
    ControlVariate.sample = lambda *args: blocks(*args)  # type: ignore[method-assign]
    estimate.map_sharded = rounds  # type: ignore[assignment]
    with shared_processes():
        start = time.process_time()
        data = demo.calibration()[:4]
        network = sc.trace(demo.network(), data[0][:2])
        traced = time.process_time()
        sc.score(network, data, by="shapley", coalitions=coalitions, only="layer2.*", progress=False)
        scored = time.process_time() - traced
    exchange = rounds.seconds - blocks.seconds
    return seconds | {
        "trace": traced - start, "blocks": blocks.seconds, "exchange": exchange, "rest": scored - rounds.seconds
    }  # fmt: skip


class Clock:
    """Add up the processor time of the calls of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *args: Any) -> Any:
        start = time.process_time()
        try:
            return self.function(*args)
        finally:
            self.seconds += time.process_time() - start


def seconds_of_processes(processes: int, coalitions: int) -> list[Mapping[str, float]]:
    """Return the processor seconds of each process."""
    launch = [*LAUNCH, str(processes)] if processes > 1 else []
    command = [sys.executable, *launch, "-m", "shapley.processes", "--work", "--coalitions", str(coalitions)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def main() -> None:
    """Measure one and two processes, or work as one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coalitions", type=int, default=40_000)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        print(json.dumps(work(args.coalitions)), flush=True)
        return
    print(f"| processes | {' | '.join(STAGES_OF_WORK)} | all |")
    print("|--:|" + "--:|" * (len(STAGES_OF_WORK) + 1))
    runs = {count: seconds_of_processes(count, args.coalitions) for count in (1, 2)}
    for count, processes in runs.items():
        means = [sum(process[stage] for process in processes) / len(processes) for stage in STAGES_OF_WORK]
        print(f"| {count} | {' | '.join(f'{seconds:.1f}' for seconds in means)} | {sum(means):.1f} |")
    (one,) = runs[1]
    blocks = one["blocks"]
    undivided = max(sum(process.values()) - process["blocks"] for process in runs[2])
    speedups = ", ".join(f"{(sum(one.values())) / (undivided + blocks / count):.1f} with {count}" for count in UP_TO)
    print(f"Undivided: {undivided:.1f} s. Times as fast, projected from these: {speedups}.")


if __name__ == "__main__":
    main()
