"""The tables of ImageNet networks on photos, by what they were calibrated on."""

from collections.abc import Iterable, Mapping, Sequence

from published.methods import LABELS
from published.photos import OF_TEN, ONE_EACH

Row = Mapping[str, object]
INTRODUCTION = """## ImageNet photos

The networks have 1,000 classes. They are judged on 500 validation photos of ten of them (Imagenette): the top-1
accuracy among all 1,000 classes, the accuracy among the ten, and the agreement of the top class with the dense network.
The photos that they are pruned and repaired with, without labels, are of two kinds:

- *One photo a class*: photos of the other 990 classes, one of each, from github.com/EliSchwartz/imagenet-sample-images.
  The test then shows what the network has kept in general. Take such photos, as varied as the network's task, where the
  smaller network shall do all that the dense one does.
- *Photos of the ten classes*: training photos of the classes that are tested. The repair specialises in them, so the
  top-1 accuracy may rise above that of the dense network, because other classes are predicted less often. Take such
  photos where the smaller network shall see these classes alone, and judge it by the agreement, or by labels of its own
  task; its other classes suffer and no figure here shows by how much.

*Agreement, other photos* is that on up to 400 photos of the kind that the network was pruned with, which it was not
pruned with.

The standard error of an accuracy of 70 % on 500 photos is 2.0 points, that of an agreement of 90 % is 1.3 points.
"""
MEASURES = {
    "accuracy": "top-1 of 1,000",
    "among ten": "among ten",
    "agreement": "agreement",
    "agreement on others": "agreement, other photos",
}
GOALS = """The goals, with one photo a class at 75 % of the MACs: an agreement of at least 90 % and at most 2.0 points
of top-1 lost for MobileNetV2, and an agreement of 94 % for EfficientNet-Lite0. They are missed on both kinds of photos.
"""


def photo_sections(dense: Iterable[Row], rows: Sequence[Row]) -> list[str]:
    """Return the parts of the page on photos; none without rows.

    Args:
        dense: the rows of the dense networks, by network and kind of photos.
        rows: those of the methods.
    """
    by_network: dict[str, list[str]] = {}
    for row in dense:
        network, _, photos = str(row["network"]).partition(", ")
        lines = by_network.setdefault(network, [_photo_line(row, ["", "", "dense"])])  # the same with other photos
        measured = [other for other in rows if other["network"] == row["network"]]
        for other in sorted(measured, key=_order):
            names = [f"{other['images']}, {photos}", f"{float(str(other['macs'])):.1%}", LABELS[str(other["method"])]]
            lines.append(_photo_line(other, names))
    sections = [_photo_table(network, lines) for network, lines in by_network.items() if len(lines) > 1]
    return [INTRODUCTION, *sections, GOALS] if sections else []


def is_of_photos(network: str) -> bool:
    """Return True for the networks that are judged on photos."""
    return network.endswith((ONE_EACH, OF_TEN))


def _order(row: Row) -> tuple[float, ...]:
    return -float(str(row["keep"])), float(str(row["images"])), float(list(LABELS).index(str(row["method"])))


def _photo_table(network: str, lines: Sequence[str]) -> str:
    columns = ["photos", "MACs", "method", *MEASURES.values(), "seconds", "passes"]
    head = f"| {' | '.join(columns)} |\n|---|--:|---|{'--:|' * (len(MEASURES) + 2)}"
    return f"### {network}\n\n{head}\n" + "\n".join(lines) + "\n"


def _photo_line(row: Row, names: Sequence[str]) -> str:
    measures = [f"{float(str(row[name])):.1%}" if name in row else "" for name in MEASURES]
    costs = [f"{float(str(row[name])):.0f}" if name in row else "" for name in ("processor seconds", "passes")]
    return "| " + " | ".join([*names, *measures, *costs]) + " |"
