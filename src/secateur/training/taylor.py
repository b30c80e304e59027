"""Former module of `TaylorSchedule`, which is now imported from `secateur.training`."""

from typing import Any

from secateur.training.taylor_schedule import TaylorSchedule as _TaylorSchedule
from secateur.utils.deprecation import deprecated_attribute


def __getattr__(name: str) -> Any:
    renamed = {"TaylorSchedule": ("secateur.training.TaylorSchedule", _TaylorSchedule)}
    return deprecated_attribute(__name__, name, renamed)
