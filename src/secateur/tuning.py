"""Former module of `distillation`, which is now imported from `secateur.training`."""

from typing import Any

from secateur.recovery.distillation import distillation as _distillation
from secateur.utils.deprecation import deprecated_attribute


def __getattr__(name: str) -> Any:
    return deprecated_attribute(__name__, name, {"distillation": ("secateur.training.distillation", _distillation)})
