"""What a training of your own needs to bring a cut network near the dense one."""

from secateur.recovery.distillation import distillation

__all__ = ["distillation"]
