"""Settings of arithmetic: what is compared is computed in full precision, and the user's settings come back."""

import torch
from torch import Tensor, nn

import secateur as sc
from secateur.devices import comparable_arithmetic


class Recorder(nn.Module):
    """Notes in which arithmetic it runs."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self.notes = notes
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def __deepcopy__(self, memo: object) -> "Recorder":
        copy = Recorder(self.notes)
        copy.layers.load_state_dict(self.layers.state_dict())
        return copy

    def forward(self, x: Tensor) -> Tensor:
        self.notes.append(torch.backends.cudnn.conv.fp32_precision)
        y: Tensor = self.layers(x)
        return y


def test_a_cut_model_is_compared_in_full_precision_and_the_settings_come_back() -> None:
    notes: list[str] = []
    model = Recorder(notes).eval()
    network = sc.trace(model, torch.randn(2, 4))
    plan = sc.plan(network, sc.score(network, by="l2"), keep={"units": 0.5})
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    notes.clear()
    sc.cut(model, plan)
    assert notes and set(notes) == {"ieee"}
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"


def test_settings_come_back_after_an_error() -> None:
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    try:
        with comparable_arithmetic():
            raise KeyError
    except KeyError:
        pass
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"
