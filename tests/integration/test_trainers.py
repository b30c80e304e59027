"""A person's own trainer as a step of a repair: the loops that docs/repair.md shows, by the libraries themselves."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.data.batch import Batch
from secateur.training import distillation

pytestmark = untrained_networks

STEPS = 60
Train = Callable[[nn.Module, nn.Module, Sequence[Batch]], None]


class Classifier(nn.Module):
    """Takes and gives what models of the transformers library do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 5))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.layers(x)}


def by_accelerate(small: nn.Module, dense: nn.Module, batches: Sequence[Batch]) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    loader = torch.utils.data.DataLoader(torch.cat([batch.args[0] for batch in batches]), batch_size=16, shuffle=True)
    model, optimizer, loader = accelerator.prepare(small, torch.optim.Adam(small.parameters(), 1e-2), loader)
    for _ in range(STEPS // len(loader)):
        for x in loader:
            with torch.no_grad():
                wanted = dense(x)
            accelerator.backward(distillation(model(x), wanted).mean())
            optimizer.step()
            optimizer.zero_grad()


def by_transformers(folder: Path) -> Train:
    pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")

    def train(small: nn.Module, dense: nn.Module, batches: Sequence[Batch]) -> None:
        class Distilled(transformers.Trainer):  # type: ignore[name-defined, misc]
            def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
                outputs = model(**inputs)
                with torch.no_grad():
                    wanted = dense(**inputs)
                loss = distillation(outputs, wanted).mean()
                return (loss, outputs) if return_outputs else loss

        options = transformers.TrainingArguments(
            str(folder), max_steps=STEPS, per_device_train_batch_size=16, learning_rate=1e-2, use_cpu=True,
            report_to=[], save_strategy="no", disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        examples = [{"x": x} for batch in batches for x in batch.args[0]]
        Distilled(model=small, args=options, train_dataset=examples).train()

    return train


def by_lightning(small: nn.Module, dense: nn.Module, batches: Sequence[Batch]) -> None:
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.small = small

        def training_step(self, x: Tensor, index: int) -> Tensor:
            with torch.no_grad():
                wanted = dense(x)
            return distillation(self.small(x), wanted).mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), 1e-2)

    loader = torch.utils.data.DataLoader(torch.cat([batch.args[0] for batch in batches]), batch_size=16, shuffle=True)
    lightning.Trainer(
        accelerator="cpu", max_steps=STEPS, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Module(), loader)  # fmt: skip


TRAINERS: dict[str, Train] = {"accelerate": by_accelerate, "lightning": by_lightning}


@pytest.mark.parametrize("library", [*TRAINERS, "transformers"])
def test_another_librarys_trainer_mends_a_cut_network(library: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Classifier()
    x = torch.randn(160, 6)
    network = sc.trace(model, x[:2])
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 0.4})
    train = by_transformers(tmp_path) if library == "transformers" else TRAINERS[library]
    small = sc.cut(model, plan)

    def error() -> float:
        with torch.no_grad():
            return float((small(x)["logits"] - model(x)["logits"]).square().mean())

    before = error()
    sc.repair(small, model, plan, x, how=train, progress=False)
    assert error() < 0.7 * before
    assert not any(parameter.grad is not None for parameter in model.parameters())
