"""ultralytics: detection, segmentation and classification networks of the smallest scale."""

from torch import nn

from wild.definitions import Definition, images


def _make(task: str, file: str) -> nn.Module:
    from ultralytics.nn import tasks

    model = getattr(tasks, task)(file, verbose=False)
    assert isinstance(model, nn.Module)
    return model


def _definition(task: str, file: str, size: int = 64) -> Definition:
    return Definition(lambda: _make(task, file), images(size))


FAMILIES = {
    "yolov8n": _definition("DetectionModel", "yolov8n.yaml"),
    "yolo11n": _definition("DetectionModel", "yolo11n.yaml"),
    "yolov8n_seg": _definition("SegmentationModel", "yolov8n-seg.yaml"),
    "yolo11n_cls": _definition("ClassificationModel", "yolo11n-cls.yaml"),
}

DEFINITIONS = {f"ultralytics/{name}": definition for name, definition in FAMILIES.items()}
