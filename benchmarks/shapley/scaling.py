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
class ScalingMeasurement:
    """The seconds for eight blocks of samples of the first group, and the megabytes by which the process grew."""

    units: int
    examples: int
    depth: int
    limit: int
    seconds: float
    megabytes: float


def measure_setting(units: int, examples: int, depth: int, megabytes: int) -> ScalingMeasurement:
    """Measure one setting in a fresh process."""
    command = [sys.executable, "-m", "shapley.scaling", *map(str, (units, examples, depth, megabytes))]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1]
    return ScalingMeasurement(units, examples, depth, megabytes, **json.loads(line))


def measure_scaling() -> dict[str, list[ScalingMeasurement]]:
    """Measure a series for each size, the others fixed."""
    units, examples, depth, limit = BASE
    return {
        "units": [measure_setting(size, examples, depth, limit) for size in UNITS],
        "examples": [measure_setting(units, size, depth, limit) for size in EXAMPLES],
        "depth": [measure_setting(units, examples, size, limit) for size in DEPTHS],
        "limit": [measure_setting(units, 4096, depth, size) for size in LIMITS],
    }


def slope(measurements: list[ScalingMeasurement], by: str, measure: str) -> float:
    """Return the slope of a measure by a size on a log-log plot."""
    points = [(np.log(getattr(measurement, by)), np.log(getattr(measurement, measure))) for measurement in measurements]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0])


def _measure_here(units: int, examples: int, depth: int, megabytes: int) -> dict[str, float]:
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
    with MemoryGrowth() as growth:
        start = time.perf_counter()
        sc.score(network, data, stop=Coalitions(1), memory=megabytes << 20, **options)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "megabytes": growth.grown / (1 << 20)}


class MemoryGrowth:
    """The largest number of bytes by which the process grows within the context, sampled every few milliseconds."""

    def __init__(self) -> None:
        self.process, self.ended = psutil.Process(), threading.Event()
        self.before = self.most = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._watch)

    @property
    def grown(self) -> int:
        """The number of bytes."""
        return int(self.most - self.before)

    def _watch(self) -> None:
        while not self.ended.wait(0.005):
            self.most = max(self.most, self.process.memory_info().rss)

    def __enter__(self) -> "MemoryGrowth":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()


if __name__ == "__main__":
    print(json.dumps(_measure_here(*map(int, sys.argv[1:]))))
