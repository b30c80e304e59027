"""Measure the speed of cut networks beside the dense ones, or print the table of the rows of results.

    python -m benchmarks speed --data DIR [--networks demo] [--budgets macs] [--out FOLDER]
    python -m benchmarks speed --data DIR --jobs 4 --cores 1 --threads 1
    python -m benchmarks speed --data DIR --jobs 2 --cores 2 --threads 2 --saved
    python -m benchmarks speed --table

Networks are cut to half their MACs, and to half their time for a batch of 32 on one thread. Both networks run in turn,
eagerly and by onnxruntime, for one image and for 32, on one thread and on two; on one, processor time is taken, which
other work on the machine does not count towards. The C library keeps freed memory (see `keep_freed_memory`). Each
network, budget and method is a job of one to five minutes and writes its row to a file in FOLDER
(`benchmarks/results/speed` by default); a method that fails is a row that says why. With --jobs, that many jobs run at
once, each on --cores processor cores of its own, no two jobs on the same core: those of `prune` as it is by default
first, large networks first. Networks made by `prune` are saved beside their rows; --saved measures them again on other
numbers of threads and adds that to the rows.

DIR holds CIFAR-10 as `cifar10.npz` (xtrain, xtest (images, 32, 32, 3), ytest), CIFAR ResNets under the names of
`networks.cifar_resnet` as `cifar10_resnet20.safetensors` and `cifar10_resnet56.safetensors`, the weights of MobileNetV2
as torchvision publishes them, `mobilenet_v2-b0353104.pth`, and `imagenette.zip` with training/CLASS/*.JPEG and
validation/CLASS/*.JPEG of 224 x 224. The others need nothing. torch-pruning (`pip install --no-deps
torch-pruning==1.6.1`), pillow, onnx, onnxscript and onnxruntime must be installed.
"""

import argparse
import copy
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
from provenance import results_folder
from rows import row_with_provenance

import secateur as sc
from speed.methods import BUDGETS, METHODS, TRIED
from speed.subjects import SUBJECTS
from speed.table import speed_tables
from speed.timing import RUNTIMES, ClockSettings, keep_freed_memory, measure_speeds

RESULTS = results_folder("speed")


def _speed_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--networks", nargs="+", default=list(SUBJECTS), choices=SUBJECTS)
    parser.add_argument("--budgets", nargs="+", default=list(BUDGETS), choices=BUDGETS)
    parser.add_argument("--methods", nargs="+", default=None, choices=METHODS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    parser.add_argument("--seconds", type=float, default=6.0, help="for each of the eight measurements at most")
    parser.add_argument("--jobs", type=int, default=0, help="how many networks and budgets are measured at once")
    parser.add_argument("--cores", type=int, default=2, help="processor cores of each job")
    parser.add_argument("--saved", action="store_true", help="measure networks that were saved, and add to their rows")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the table of the rows of results")
    return parser


def main() -> None:
    """Read the options, then measure or print the table."""
    args = _speed_parser().parse_args()
    if args.table:
        print(speed_tables(args.out))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    jobs = [
        (name, budget, method)
        for name, budget in itertools.product(args.networks, args.budgets)
        for method in TRIED[budget]
        if args.methods is None or method in args.methods
    ]
    if args.jobs:
        _side_by_side(args, jobs)
        return
    for job in jobs:
        (_measure_saved if args.saved else _measure_method)(args, *job)


def _measure_method(args: argparse.Namespace, name: str, budget: str, method: str) -> None:
    """Cut one network for one budget by one method, and measure."""
    torch.set_num_threads(1)
    keep_freed_memory()
    subject = SUBJECTS[name](args.data)
    start = time.perf_counter()
    row = {"network": name, "budget": budget, "method": method, "dense": subject.accuracy(subject.model)}
    try:
        small = METHODS[method](subject, BUDGETS[budget])
    except Exception as failure:  # noqa: BLE001 (a peer may raise anything, and the table says so)
        row |= {"failure": f"{type(failure).__name__}: {failure}"[:200]}
    else:
        row |= {"accuracy": subject.accuracy(small.model), "macs": small.macs, "effective": small.effective,
                "seconds": time.perf_counter() - start, "notes": small.notes}  # fmt: skip
        if not method.startswith("torch-pruning"):
            sc.save(small.model, args.out / "saved" / _file_name(name, budget, method))
        images = torch.cat(subject.calibration)
        row |= {"speeds": list(measure_speeds(subject.model, small.model, images, _clock_settings(args)))}
    (args.out / f"{_file_name(name, budget, method)}.jsonl").write_text(row_with_provenance(row) + "\n")
    print(json.dumps(row), flush=True)


def _measure_saved(args: argparse.Namespace, name: str, budget: str, method: str) -> None:
    """Measure a saved network on other numbers of threads; do nothing where there is none."""
    path, folder = (args.out / kind / _file_name(name, budget, method) for kind in ("", "saved"))
    if not folder.exists():
        return
    keep_freed_memory()
    subject = SUBJECTS[name](args.data)
    small = sc.load(copy.deepcopy(subject.model), folder).eval().to(memory_format=torch.channels_last)
    row = json.loads(path.with_suffix(".jsonl").read_text())
    added = list(measure_speeds(subject.model, small, torch.cat(subject.calibration), _clock_settings(args)))
    row["speeds"] = [speed for speed in row["speeds"] if speed["threads"] not in args.threads] + added
    path.with_suffix(".jsonl").write_text(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def _clock_settings(args: argparse.Namespace) -> ClockSettings:
    return ClockSettings(args.runtimes, args.threads, args.seconds)


def _file_name(name: str, budget: str, method: str) -> str:
    return f"{name}-{budget}-{method.split(',', maxsplit=1)[0].replace(' ', '-')}"


def _side_by_side(args: argparse.Namespace, jobs: list[tuple[str, str, str]]) -> None:
    """Run jobs at once, each on its own cores; those of `prune` by default begin first, the longest of them first."""
    cores = sorted(os.sched_getaffinity(0))
    free: Queue[list[int]] = Queue()
    for number in range(min(args.jobs, len(cores) // args.cores)):
        free.put(cores[args.cores * number : args.cores * (number + 1)])

    def run(job: tuple[str, str, str]) -> int:
        name, budget, method = job
        job_cores = free.get()
        command = [sys.executable, "-m", "speed", "--networks", name, "--budgets", budget, "--methods", method]
        command += ["--out", str(args.out), "--seconds", str(args.seconds), "--threads", *map(str, args.threads)]
        command += ["--runtimes", *args.runtimes]
        command += [*(["--data", str(args.data)] if args.data else []), *(["--saved"] if args.saved else [])]
        with (args.out / f"{_file_name(*job)}.log").open("a") as log:
            code = subprocess.run(
                command, stdout=log, stderr=log, check=False, preexec_fn=lambda: os.sched_setaffinity(0, job_cores)
            ).returncode
        free.put(job_cores)
        print(f"{name}, {budget}, {method}: {'done' if code == 0 else f'exit code {code}'}", flush=True)
        return code

    with ThreadPoolExecutor(free.qsize()) as pool:
        list(pool.map(run, sorted(jobs, key=_job_order, reverse=True)))


def _job_order(job: tuple[str, str, str]) -> tuple[bool, bool, int]:
    """Return the key by which jobs are ordered, the first ones last."""
    name, _, method = job
    return method == "secateur", not method.startswith("torch-pruning"), list(SUBJECTS).index(name)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    main()
