"""The loaders and measures of the benchmark of published networks, on files that the test makes."""

import io
import json
import wave
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from distillation import Distillation
from PIL import Image
from published import camvid, photos, speech
from published.allocation_tables import version_table
from published.camvid_lean import LeanRequest, lean_row, request_of
from published.methods import METHODS, PruningTask
from published.page import write_published_page
from published.peers import macs_of
from published.photo_tables import photo_sections
from published.subject import PublishedSubject
from published.torch_pruning_peers import distilled
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks

pytestmark = untrained_networks


def image_file(pixels: np.ndarray, form: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **({"quality": 100, "subsampling": 0} if form == "JPEG" else {}))
    return stream.getvalue()


def archive_of(path: Path, files: Mapping[str, bytes]) -> zipfile.ZipFile:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return zipfile.ZipFile(path)


def gray(value: int, height: int = 224, width: int = 224) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_photos_of_ten_classes_have_their_numbers_among_a_thousand(tmp_path: Path) -> None:
    files = {
        "validation/n02102040/a.JPEG": image_file(gray(51), "JPEG"),
        "validation/n03888257/b.JPEG": image_file(gray(255), "JPEG"),
        "training/n01440764/c.JPEG": image_file(gray(0), "JPEG"),
    }
    images, labels = photos.ten_classes(archive_of(tmp_path / "imagenette.zip", files), "validation")
    assert images.shape == (2, 3, 224, 224)
    assert labels.tolist() == [217, 701]
    torch.testing.assert_close(images[:, 0, 0, 0], torch.tensor([0.2, 1.0]))


def test_one_photo_of_each_class_leaves_the_ten_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "CLASSES", 4)
    monkeypatch.setattr(photos, "TEN", {"n00000001": 1})
    for number in range(4):
        (tmp_path / f"n0000000{number}_name.JPEG").write_bytes(image_file(gray(60 * number, 512, 300), "JPEG"))
    images, labels = photos.one_each(tmp_path)
    assert labels.tolist() == [0, 2, 3]
    assert images.shape == (3, 3, 224, 224)
    torch.testing.assert_close(images[:, 1, 112, 112], torch.tensor([0, 120 / 255, 180 / 255]))
    (tmp_path / "n00000003_name.JPEG").unlink()
    with pytest.raises(SystemExit, match="has 3 photos, not one for each of 4"):
        photos.one_each(tmp_path)


class Scores(nn.Module):
    """Scores that are the inputs, plus a bias for some classes."""

    def __init__(self, bias: Mapping[int, float]) -> None:
        super().__init__()
        self.bias = torch.zeros(1000)
        for number, value in bias.items():
            self.bias[number] = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.bias


def test_photos_are_judged_among_all_classes_among_ten_and_by_agreement() -> None:
    """Four photos: three are right, one is taken for class 5; the small network takes a second one for class 5."""
    inputs = torch.zeros(4, 1000)
    for photo, (number, score) in enumerate([(0, 3.0), (217, 3.0), (482, 1.5), (491, 0.5)]):
        inputs[photo, number] = score
    dense, small = Scores({5: 1.0}), Scores({5: 2.0})
    subject = photos.PhotoClassifier("", inputs, inputs, torch.tensor([0, 217, 482, 491]), dense, batch=3)
    assert subject.measures(dense) == {"accuracy": 0.75, "top-5": 1, "among ten": 1, "agreement": 1}
    assert subject.measures(small) == {"accuracy": 0.5, "top-5": 1, "among ten": 1, "agreement": 0.75}


def test_the_agreement_on_others_is_of_photos_that_were_not_drawn() -> None:
    inputs = torch.eye(6, 1000) * 3
    dense, small = Scores({}), Scores({0: 4.0})
    subject = photos.PhotoClassifier("", inputs, inputs, torch.arange(6), dense, batch=3)
    drawn = torch.cat(subject.draw(4, seed=1)).argmax(1)
    agreement = 0.0 if 0 in drawn else 0.5  # the small network predicts class 0 for all photos
    assert subject.measures_on_others(small, 4, seed=1) == {"others": 2, "agreement on others": agreement}
    assert subject.measures_on_others(dense, 4, seed=1) == {"others": 2, "agreement on others": 1.0}


def camvid_files() -> dict[str, bytes]:
    files = dict[str, bytes]()
    for split, count in (("train", 3), ("test", 2)):
        for number in range(count):
            labels = np.full((16, 24), number, np.uint8)
            labels[:, 20:] = camvid.VOID
            pixels = gray(0, 16, 24)
            pixels[..., 0] = 100 + number  # red
            files[f"CamVid/{split}/{number}.png"] = image_file(pixels, "PNG")
            files[f"CamVid/{split}annot/{number}.png"] = image_file(labels, "PNG")
    return files


class PixelClassifier(nn.Sequential):
    """Two convolutions to twelve classes."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 1))


@pytest.fixture
def segmentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> camvid.Segmentation:
    torch.manual_seed(0)
    archive_of(tmp_path / "camvid.zip", camvid_files()).close()
    monkeypatch.setattr(camvid, "load_espnet", lambda _: PixelClassifier().eval())
    return camvid.camvid_subject(tmp_path)


def test_camvid_is_blue_green_red_with_its_labels(segmentation: camvid.Segmentation) -> None:
    assert segmentation.images.shape == (3, 3, 16, 24)
    assert segmentation.labels is not None
    assert segmentation.labels[:, 0, 0].tolist() == [0, 1, 2]
    torch.testing.assert_close(segmentation.images[1, 2, 0, 0], torch.tensor((101 - 103.114) / 68.869 / 255))
    torch.testing.assert_close(segmentation.images[1, 0, 0, 0], torch.tensor(-108.059 / 70.977 / 255))


def test_mean_iou_by_hand() -> None:
    labels = torch.tensor([[[0, 0, 1, 11]]])
    predicted = torch.tensor([[[0, 1, 1, 0]]])  # the last pixel has no class
    scores = nn.functional.one_hot(predicted, 12).permute(0, 3, 1, 2).float()
    assert float(camvid.mean_iou(scores, labels)) == pytest.approx((1 / 2 + 1 / 2) / 11)


def test_the_metric_of_reports_and_bounds_is_the_measure_of_rows(segmentation: camvid.Segmentation) -> None:
    data = segmentation.draw(3, 0)
    tests = [(segmentation.test_images, segmentation.test_labels)]
    result = sc.prune(
        segmentation.dense, data, {"macs": 0.6}, test=tests, metric=camvid.mean_iou, allocation="uniform",
        repair="refit", progress=False,
    )  # fmt: skip
    dense, small = (segmentation.measures(model)["accuracy"] for model in (segmentation.dense, result.model))
    assert result.report.dense.metric == pytest.approx(dense)
    assert result.report.pruned.metric == pytest.approx(small)


def wave_file(samples: np.ndarray) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(speech.RATE)
        file.writeframes(samples.astype(np.int16).tobytes())
    return stream.getvalue()


def test_clips_have_the_numbers_of_their_words_and_a_tone_is_in_its_band(tmp_path: Path) -> None:
    tone = 10_000 * np.sin(2 * np.pi * 1000 * np.arange(speech.RATE) / speech.RATE)
    files = {
        "yes/a.wav": wave_file(tone),
        "_unknown_/bed_b.wav": wave_file(0 * tone[:5000]),
        "_silence_/c.wav": wave_file(tone),
    }
    archive_of(tmp_path / "clips.zip", files).close()
    clips, words = speech.read_clips(tmp_path / "clips.zip")
    assert clips.shape == (2, 1, 40, 32)
    spectra = {int(word): clip[0, :, 16] for word, clip in zip(words, clips, strict=True)}  # bed 0, yes 1
    torch.testing.assert_close(spectra[0], torch.full((40,), speech.FLOOR).log2())
    mel = 2595 * np.log10(1 + 1000 / 700)  # the bands' centres are equally far from each other
    assert int(spectra[1].argmax()) == round(mel / (2595 * np.log10(1 + 8000 / 700)) * 41) - 1


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    second = [nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU()]
    return nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)).eval()


@pytest.mark.parametrize("method", ["uniform", "random", "l2-groups"])
def test_methods_for_every_network_meet_the_budget(method: str) -> None:
    dense = convolutional()
    task = PruningTask(dense, list(torch.randn(16, 3, 8, 8).split(8)), 0.5, 0)
    small = METHODS[method](task)
    assert 0.3 < macs_of(small, task.image) / macs_of(dense, task.image) <= 0.5


def photo_row(network: str, **values: object) -> dict[str, object]:
    measures = {"accuracy": 0.686, "top-5": 0.906, "among ten": 0.98, "agreement": 1.0}
    return {"network": f"MobileNetV2, {network}", "method": "dense", **measures, **values}


def test_the_page_has_both_kinds_of_photos_side_by_side() -> None:
    cut = {"keep": 0.75, "images": 256, "draw": 0, "method": "default", "macs": 0.744, "processor seconds": 700.4}
    rows = [
        photo_row(photos.ONE_EACH, **cut, passes=101.2, agreement=0.9, **{"agreement on others": 0.915}),
        photo_row(photos.OF_TEN, **cut, agreement=0.816, accuracy=0.748),
    ]
    dense = [photo_row(photos.ONE_EACH), photo_row(photos.OF_TEN)]
    introduction, table, _ = photo_sections(dense, rows)
    assert "agreement" in introduction
    assert table.splitlines()[4:] == [
        "|  |  | dense | 68.6% | 98.0% | 100.0% |  |  |  |",
        "| 256, one photo a class | 74.4% | Secateur, default | 68.6% | 98.0% | 90.0% | 91.5% | 700 | 101 |",
        "| 256, photos of the ten classes | 74.4% | Secateur, default | 74.8% | 98.0% | 81.6% |  | 700 |  |",
    ]
    assert photo_sections(dense, []) == []


def test_the_excess_of_the_default_is_by_the_version_of_its_latest_row() -> None:
    def row(draw: int, allocation: str, divergence: float, version: str) -> dict[str, object]:
        case = {"network": "demo", "examples": 32, "draw": draw}
        return {**case, "allocation": allocation, "divergence": divergence, "run": {"version": version}}

    rows = [
        row(0, "uniform", 0.1, "0.9.0"), row(0, "loss", 0.3, "0.9.0"), row(0, "default", 0.3, "0.9.0"),
        row(1, "uniform", 0.2, "0.9.0"), row(1, "default", 0.4, "0.9.0"),
        row(0, "uniform", 0.2, "0.10.0"), row(0, "default", 0.2, "0.10.0"),
    ]  # fmt: skip
    assert version_table(rows).splitlines()[2:] == ["| 0.9.0 | 1 | 100.0% | 100% |", "| 0.10.0 | 1 | 0.0% | 0% |"]


def lean_of(kernels: float, by: str, tuned: bool, accuracy: float) -> dict[str, object]:
    request = {"kernels": kernels, "by": by, "tuned": tuned}
    return {**request, "accuracy": accuracy, "macs": 0.6, "processor seconds": 9.2}


class MeanOutput(PublishedSubject):
    """A subject that is judged by the mean of the outputs."""

    def measures(self, model: nn.Module) -> dict[str, float]:
        return {"accuracy": float(self.outputs(model).mean())}


def test_lean_on_camvid_is_a_row_for_each_request(segmentation: camvid.Segmentation) -> None:
    batches = segmentation.draw(3, 0)
    request = LeanRequest(0.5, "norm", tuned=False)
    subject = MeanOutput(**vars(segmentation))
    row = lean_row(subject, batches, request)
    assert request_of(row) == request
    assert (row["images"], row["kept"]) == (3, pytest.approx(0.5, abs=0.05))
    trained = lean_row(subject, batches, LeanRequest(0.5, "norm", tuned=True))
    assert trained["accuracy"] != row["accuracy"]


def test_distillation_trains_towards_the_dense_outputs_and_leaves_the_given_network_alone() -> None:
    dense, small = convolutional(), convolutional()
    nn.init.zeros_(small[-1].weight)
    batches = list(torch.randn(32, 3, 8, 8).split(16))
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    student = distilled(small, dense, batches, 0, Distillation(4, steps=60, learning_rate=0.05))
    assert all(torch.equal(tensor, small.state_dict()[name]) for name, tensor in before.items())
    images = torch.cat(batches)
    with torch.no_grad():
        errors = [float((model(images) - dense(images)).var(dim=1).mean()) for model in (small, student)]
    assert errors[1] < errors[0] / 2


def test_the_page_names_networks_without_a_smaller_one(tmp_path: Path) -> None:
    run = {"version": "1.0", "torch": "2", "processor": "P"}
    cut = {"keep": 0.5, "images": 64, "draw": 0, "method": "uniform", "processor seconds": 9.0, "passes": 30.4}
    rows = [
        {"network": "ESPNet", "method": "dense", "accuracy": 0.588},
        photo_row(photos.OF_TEN),
        {"network": "BC-ResNet-2", "method": "dense", "accuracy": 0.96},
        {"network": "BC-ResNet-2", **cut, "accuracy": 0.772, "macs": 0.44, "run": run},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    lean_rows = [lean_of(0.5, "l1", True, 0.4), lean_of(0.5, "lean", True, 0.3), lean_of(0.5, "lean", True, 0.45)]
    (tmp_path / "lean.jsonl").write_text("\n".join(json.dumps(row) for row in lean_rows))
    write_published_page(tmp_path / "rows.jsonl", tmp_path / "none.jsonl", tmp_path / "lean.jsonl", tmp_path)
    page = (tmp_path / "published.md").read_text()
    assert "\n- ESPNet: mean intersection over union 58.8%.\n- MobileNetV2: accuracy 68.6%.\n" in page
    assert '\n| Secateur, `allocation="uniform"` | 77.20 (1; 44% of the MACs) | 9 | 30 |\n' in page
    assert "- BC-ResNet-2: accuracy" not in page
    lines = ["| LEAN | 50% |  |  |  | 45.0% | 60% | 9 |", "| single kernels by L1 | 50% |  |  |  | 40.0% | 60% | 9 |"]
    assert "\n".join(["", *lines, ""]) in page
