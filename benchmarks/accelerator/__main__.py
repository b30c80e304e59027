"""Prune networks on an accelerator and on the CPU, and compare times, plans and outputs.

    python -m benchmarks accelerator fashion mobilenet smollm2 --data DIR --out FILE

For each network: wall seconds of `prune` on either device (the first CUDA call, which loads the libraries, comes
before the clock starts), the largest number of bytes that torch held on the accelerator, the share of the units kept
by both plans, and how far the outputs of the two small networks are from the dense network's and from each other's.
DIR holds `imagenette.zip` (photos of 224 x 224 in `training/` and `validation/`), which mobilenet needs,
and `SmolLM2-135M-Instruct.Q4_1.gguf` and `wikitext2.zip` (`valid.txt`, `test.txt`) for smollm2. `--out` appends a line
of JSON for each network. The whole takes about eight minutes on 16 cores.
"""

import argparse
import json
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rows import append_row
from torch import Tensor, nn

import secateur as sc
from accelerator.subjects import SUBJECTS, AcceleratorSubject


def main() -> None:
    """Read the options, and print the row of each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", choices=SUBJECTS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--alone", action="store_true", help="leave the CPU out")
    parser.add_argument("--out", type=Path, help="a file to append the rows to, as lines of JSON")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for name in args.networks:
        row = {"network": name, "device": device_name(args.device), "torch": torch.__version__}
        row |= {
            "threads": torch.get_num_threads(),
            **compare_devices(SUBJECTS[name](args.data), args.device, args.alone),
        }
        print(json.dumps(row, indent=1), flush=True)
        if args.out is not None:
            append_row(args.out, row)


def device_name(device: str) -> str:
    """Return the name of a device."""
    return torch.cuda.get_device_name() if device.startswith("cuda") else device


def compare_devices(subject: AcceleratorSubject, device: str, alone: bool) -> dict[str, Any]:
    """Prune a network on both devices, and return the row of the comparison.

    Args:
        subject: the network.
        device: the accelerator.
        alone: leave the CPU out.
    """
    on_device, cost = prune_on(subject, device)
    dense, small = (outputs_on_cpu(model.to(device), subject.test) for model in (subject.build(), on_device.model))
    row = {
        "on_device": cost,
        "macs_left": on_device.plan.cost.macs / on_device.plan.dense.macs,
        "params_left": on_device.plan.cost.params / on_device.plan.dense.params,
        "agreement_with_dense": top_agreement(dense, small),
        "dense": subject.quality(subject.build().to(device)),
        "small": subject.quality(on_device.model),
    }
    if alone:
        return row
    on_cpu, cost = prune_on(subject, "cpu")
    outputs = outputs_on_cpu(on_cpu.model.to(device), subject.test)
    return {
        **row,
        "on_cpu": cost,
        "kept_by_both": kept_overlap(on_device.plan.kept, on_cpu.plan.kept),
        "agreement_of_cpu_with_dense": top_agreement(dense, outputs),
        "agreement_of_both": top_agreement(small, outputs),
    }


def prune_on(subject: AcceleratorSubject, device: str) -> tuple[sc.Result, dict[str, float]]:
    """Return the result of `prune` on a device, its seconds, and the peak of bytes on an accelerator."""
    model = subject.build().to(device)
    outputs_on_cpu(model, subject.test[:1])
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    result = sc.prune(model, subject.calibration, test=subject.test[:1], progress=False, **subject.options)
    cost = {"seconds": time.perf_counter() - start}
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        cost = {"seconds": time.perf_counter() - start, "peak_bytes": torch.cuda.max_memory_allocated()}
    return result, cost


@torch.no_grad()
def outputs_on_cpu(model: nn.Module, batches: list[Any]) -> Tensor:
    """Return the outputs for all batches, on the CPU. (examples, ..., classes)"""
    device = next(model.parameters()).device
    outputs = []
    for batch in batches:
        output = (
            model(**{key: value.to(device) for key, value in batch.items()})
            if isinstance(batch, Mapping)
            else model(batch.to(device))
        )
        outputs.append((output if isinstance(output, Tensor) else output.logits).cpu())
    return torch.cat(outputs)


def top_agreement(a: Tensor, b: Tensor) -> float:
    """Return the share of positions with the same largest output."""
    return float((a.argmax(-1) == b.argmax(-1)).double().mean())


def kept_overlap(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return the number of units that both plans keep over the number that either keeps."""
    pairs = [(set(a[name].tolist()), set(b[name].tolist())) for name in a]
    return sum(len(x & y) for x, y in pairs) / max(1, sum(len(x | y) for x, y in pairs))


if __name__ == "__main__":
    main()
