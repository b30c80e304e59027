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
from provenance import provenance
from torch import Tensor, nn

import secateur as sc
from accelerator.subjects import SUBJECTS, Subject


def main() -> None:
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
        row |= {"threads": torch.get_num_threads(), **compare(SUBJECTS[name](args.data), args.device, args.alone)}
        print(json.dumps(row, indent=1), flush=True)
        if args.out is not None:
            with args.out.open("a") as file:
                file.write(json.dumps({**row, "run": provenance()}) + "\n")


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else device


def compare(subject: Subject, device: str, alone: bool) -> dict[str, Any]:
    """One network pruned on both devices, or on the accelerator alone."""
    there, cost = pruned(subject, device)
    dense, small = (outputs_of(model.to(device), subject.test) for model in (subject.build(), there.model))
    row = {
        "on_device": cost,
        "macs_left": there.plan.cost.macs / there.plan.dense.macs,
        "params_left": there.plan.cost.params / there.plan.dense.params,
        "agreement_with_dense": agreement(dense, small),
        "dense": subject.quality(subject.build().to(device)),
        "small": subject.quality(there.model),
    }
    if alone:
        return row
    here, cost = pruned(subject, "cpu")
    outputs = outputs_of(here.model.to(device), subject.test)
    return {
        **row,
        "on_cpu": cost,
        "kept_by_both": overlap(there.plan.kept, here.plan.kept),
        "agreement_of_cpu_with_dense": agreement(dense, outputs),
        "agreement_of_both": agreement(small, outputs),
    }


def pruned(subject: Subject, device: str) -> tuple[sc.Result, dict[str, float]]:
    """The result of `prune` on a device, and what it cost."""
    model = subject.build().to(device)
    outputs_of(model, subject.test[:1])
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
def outputs_of(model: nn.Module, batches: list[Any]) -> Tensor:
    """Outputs over all batches (examples, ..., classes), on the CPU."""
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


def agreement(a: Tensor, b: Tensor) -> float:
    """The share of places whose largest output is the same."""
    return float((a.argmax(-1) == b.argmax(-1)).double().mean())


def overlap(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Units kept by both over units kept by either."""
    pairs = [(set(a[name].tolist()), set(b[name].tolist())) for name in a]
    return sum(len(x & y) for x, y in pairs) / max(1, sum(len(x | y) for x, y in pairs))


if __name__ == "__main__":
    main()
