"""Exports that are counted."""

from typing import Any

import pytest
import torch


class CountedExports:
    """Count the exports of models."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        export = torch.export.export

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return export(*args, **kwargs)

        monkeypatch.setattr(torch.export, "export", counted)
