"""Measure how many times as fast cut networks are, or print the table of what was measured.

    PYTHONPATH=benchmarks:examples python -m speed --data DIR [--networks demo] [--budgets macs] [--out FOLDER]
    PYTHONPATH=benchmarks:examples python -m speed --data DIR --jobs 8
    PYTHONPATH=benchmarks:examples python -m speed --table

Networks are cut to half their MACs, and to half their time for a batch of 32 on one thread. Both networks run in turn,
eagerly and by onnxruntime, for one image and for 32, on one thread and on two. Each network and budget is a job of one
to five minutes and writes its rows to a file in FOLDER (`benchmarks/speed/results` by default) as it goes. With --jobs,
that many jobs run at once, each on two processor cores of its own.

DIR holds CIFAR-10 as `cifar10.npz` (xtrain, xtest (images, 32, 32, 3), ytest), CIFAR ResNets under the names of
`networks.cifar_resnet` as `cifar10_resnet20.safetensors` and `cifar10_resnet56.safetensors`, the weights of MobileNetV2
as torchvision publishes them, `mobilenet_v2-b0353104.pth`, and `imagenette.zip` with training/CLASS/*.JPEG and
validation/CLASS/*.JPEG of 224 x 224. The others need nothing. torch-pruning (`pip install --no-deps
torch-pruning==1.6.1`), pillow, onnx, onnxscript and onnxruntime must be installed.
"""

import argparse
import itertools
import json
import logging
import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import torch

from speed.methods import BUDGETS, METHODS, TRIED
from speed.subjects import SUBJECTS
from speed.table import table
from speed.timing import speeds

RESULTS = Path(__file__).with_name("results")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--networks", nargs="+", default=list(SUBJECTS), choices=SUBJECTS)
    parser.add_argument("--budgets", nargs="+", default=list(BUDGETS), choices=BUDGETS)
    parser.add_argument("--methods", nargs="+", default=None, choices=METHODS)
    parser.add_argument("--seconds", type=float, default=6.0, help="for each of the eight measurements at most")
    parser.add_argument("--jobs", type=int, default=0, help="how many networks and budgets are measured at once")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what was measured")
    args = parser.parse_args()
    if args.table:
        print(table(args.out))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    pairs = list(itertools.product(args.networks, args.budgets))
    if args.jobs:
        _side_by_side(args, pairs)
        return
    for name, budget in pairs:
        _job(args, name, budget)


def _job(args: argparse.Namespace, name: str, budget: str) -> None:
    """Cut one network for one budget by each method, and measure."""
    torch.set_num_threads(1)
    subject = SUBJECTS[name](args.data)
    images = torch.cat(subject.calibration)
    dense = subject.accuracy(subject.model)
    with (args.out / f"{name}-{budget}.jsonl").open("w") as file:
        for method in args.methods or TRIED[budget]:
            if method not in TRIED[budget]:
                continue
            torch.set_num_threads(1)
            start = time.perf_counter()
            row = {"network": name, "budget": budget, "method": method, "dense": dense}
            try:
                small = METHODS[method](subject, BUDGETS[budget])
            except Exception as failure:  # a peer may raise anything; the table says so  # noqa: BLE001
                row |= {"failure": f"{type(failure).__name__}: {failure}"[:200]}
            else:
                row |= {"accuracy": subject.accuracy(small.model), "macs": small.macs, "effective": small.effective,
                        "seconds": time.perf_counter() - start, "notes": small.notes}  # fmt: skip
                row |= {"speeds": list(speeds(subject.model, small.model, images, args.seconds))}
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(json.dumps({key: value for key, value in row.items() if key != "notes"}), flush=True)


def _side_by_side(args: argparse.Namespace, pairs: list[tuple[str, str]]) -> None:
    """Run jobs at once, each on two cores of its own; the longest begin first."""
    cores = sorted(os.sched_getaffinity(0))
    free: Queue[list[int]] = Queue()
    for number in range(min(args.jobs, len(cores) // 2)):
        free.put(cores[2 * number : 2 * number + 2])

    def run(pair: tuple[str, str]) -> int:
        own = free.get()
        command = [sys.executable, "-m", "speed", "--networks", pair[0], "--budgets", pair[1], "--out", str(args.out)]
        command += ["--seconds", str(args.seconds)] + (["--data", str(args.data)] if args.data else [])
        command += ["--methods", *args.methods] if args.methods else []
        with (args.out / f"{pair[0]}-{pair[1]}.log").open("w") as log:
            code = subprocess.run(
                command, stdout=log, stderr=log, check=False, preexec_fn=lambda: os.sched_setaffinity(0, own)
            ).returncode
        free.put(own)
        print(f"{pair[0]} {pair[1]}: {'done' if code == 0 else f'exit code {code}'}", flush=True)
        return code

    with ThreadPoolExecutor(free.qsize()) as pool:
        list(pool.map(run, sorted(pairs, key=lambda pair: -list(SUBJECTS).index(pair[0]))))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    main()
