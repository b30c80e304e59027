"""Time and memory against units, examples and depth: a convolutional network of one width, in a process of its own.

python -m benchmarks shapley.scaling UNITS EXAMPLES DEPTH MEGABYTES
"""

import ctypes
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from torch import nn

import secateur as sc
from secateur.stopping import Coalitions

UNITS, EXAMPLES, DEPTHS, MEGABYTES = (16, 32, 64, 128, 256, 512, 1024), (32, 128, 512, 2048), (1, 2, 4, 8, 16), 64
LIMITS = (32, 64, 128, 256)
BASE = (64, 128, 2, 1024)


@dataclass(frozen=True)
class Measured:
    """Seconds for eight blocks of the first group, and how many megabytes the process grew by at most."""

    units: int
    examples: int
    depth: int
    limit: int
    seconds: float
    megabytes: float


def measure(units: int, examples: int, depth: int, megabytes: int) -> Measured:
    """One setting, in a fresh process."""
    words = [sys.executable, "-m", "shapley.scaling", *map(str, (units, examples, depth, megabytes))]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1]
    return Measured(units, examples, depth, megabytes, **json.loads(said))


def sweep() -> dict[str, list[Measured]]:
    """Each quantity by itself."""
    units, examples, depth, limit = BASE
    return {
        "units": [measure(each, examples, depth, limit) for each in UNITS],
        "examples": [measure(units, each, depth, limit) for each in EXAMPLES],
        "depth": [measure(units, examples, each, limit) for each in DEPTHS],
        "limit": [measure(units, 4096, depth, each) for each in LIMITS],
    }


def slope(measured: list[Measured], by: str, of: str) -> float:
    """The slope on a log-log plot."""
    points = [(np.log(getattr(each, by)), np.log(getattr(each, of))) for each in measured]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0])


def _alone(units: int, examples: int, depth: int, megabytes: int) -> dict[str, float]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, units, 3, padding=1), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Conv2d(units, units, 1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Conv2d(units, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.randn(examples, 3, 4, 4)
    data = list(zip(images.split(32), torch.randint(0, 16, (examples,)).split(32), strict=True))
    network = sc.trace(model, images[:2])
    options = {"only": "0", "ablation": "zero", "aggregate": "mean", "progress": False, "estimator": "controlled"}
    sc.score(network, data[:1], stop=Coalitions(1), **options)  # what torch needs for itself
    ctypes.CDLL(None).malloc_trim(0)
    with Watched() as watched:
        start = time.perf_counter()
        sc.score(network, data, stop=Coalitions(1), memory=megabytes << 20, **options)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "megabytes": watched.grown / (1 << 20)}


class Watched:
    """By how many bytes the process grows inside, at most; looked at every few milliseconds."""

    def __init__(self) -> None:
        self.process, self.ended = psutil.Process(), threading.Event()
        self.before = self.most = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._watch)

    @property
    def grown(self) -> int:
        return int(self.most - self.before)

    def _watch(self) -> None:
        while not self.ended.wait(0.005):
            self.most = max(self.most, self.process.memory_info().rss)

    def __enter__(self) -> "Watched":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()


if __name__ == "__main__":
    print(json.dumps(_alone(*map(int, sys.argv[1:]))))
