"""ultralytics: detection, segmentation and classification networks of the smallest scale."""

from torch import nn

from wild.definitions import Definition, images


def _ultralytics_model(task: str, file: str) -> nn.Module:
    from ultralytics.nn import tasks

    model = getattr(tasks, task)(file, verbose=False)
    assert isinstance(model, nn.Module)
    return model


def _ultralytics_definition(task: str, file: str, size: int = 64) -> Definition:
    return Definition(lambda: _ultralytics_model(task, file), images(size))


FAMILIES = {
    "yolov8n": _ultralytics_definition("DetectionModel", "yolov8n.yaml"),
    "yolo11n": _ultralytics_definition("DetectionModel", "yolo11n.yaml"),
    "yolov8n_seg": _ultralytics_definition("SegmentationModel", "yolov8n-seg.yaml"),
    "yolo11n_cls": _ultralytics_definition("ClassificationModel", "yolo11n-cls.yaml"),
}

DEFINITIONS = {f"ultralytics/{name}": definition for name, definition in FAMILIES.items()}
