"""The small networks, data and names that the code of each documentation page uses."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTConfig, ViTForImageClassification

import secateur as sc

Namespace = dict[str, Any]


class Images(nn.Module):
    """A network for images of any size."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, channels, 3, stride=2), nn.Conv2d(channels, channels, 3, stride=2)
        self.fc = nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv2(F.relu(self.conv1(x)))).mean((2, 3)))


class Detector(nn.Module):
    """A network whose output is a dict, and whose targets are lists."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.boxes = nn.Linear(12, 8), nn.Linear(8, 4)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"boxes": self.boxes(F.relu(self.backbone(images.flatten(1))))}


class Segmenter(nn.Module):
    """A network with a class for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(x)))


class GraphNetwork(nn.Module):
    """A network for one graph at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.classify = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, features: Tensor, adjacency: Tensor) -> Tensor:
        return self.classify(adjacency @ F.relu(self.embed(features)))


def classifier(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3)).eval()


def labelled(model: nn.Module, examples: int) -> list[tuple[Tensor, Tensor]]:
    """Return batches of 16 with the classes of the model itself as labels."""
    inputs = torch.randn(examples, 4).split(16)
    with torch.no_grad():
        return [(batch, model(batch).argmax(1)) for batch in inputs]


def transformers_model() -> nn.Module:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4)).eval()


def with_scaled_filters(model: Images) -> Images:
    """Scale the filters, so that scores of units are far apart, and an estimate of their order ends soon."""
    for layer in (model.conv1, model.conv2):
        scales = torch.logspace(-2, 2, layer.out_channels, base=2)
        layer.weight.data.mul_(scales[:, None, None, None])
    return model


def pruning() -> Namespace:
    data = [torch.randn(16, 3, 8, 8) for _ in range(3)]
    models = {"model": with_scaled_filters(Images(32)), "fresh_model": Images(32), "vit": transformers_model()}
    return {**models, "data": data, "example_inputs": data[0][:2]}


def criteria() -> Namespace:
    model = classifier()
    data = labelled(model, 64)
    return {"sc": sc, "model": model, "data": data, "network": sc.trace(model, data[0][0])}


def migrating() -> Namespace:
    model = classifier(16)
    return {"model": model, "data": labelled(model, 64), "fresh_model": classifier(16)}


def repairing() -> Namespace:
    model = classifier(16)
    data = labelled(model, 128)
    names = criteria() | {"model": model, "data": data, "test": labelled(model, 64), "torch": torch}
    plan = sc.plan(sc.trace(model, data[0][0]), sc.score(sc.trace(model, data[0][0]), by="l1"), {"macs": 0.5})
    small = sc.cut(model, plan)
    training = {"small": small, "dense": model, "loader": [inputs for inputs, _ in data]}
    optimizer = torch.optim.SGD(small.parameters(), lr=0.01)
    return names | training | {"optimizer": optimizer, "Trainer": object, "LightningModule": nn.Module}


def forms_of_data() -> Namespace:
    graphs = [(torch.randn(nodes, 4), torch.eye(nodes), torch.randint(2, (nodes,))) for nodes in (5, 6, 5, 7) * 4]
    names = {"sc": sc, "torch": torch, "detector": Detector(), "images": torch.randn(8, 3, 2, 2), "graphs": graphs}
    targets = [{"boxes": torch.rand(4)} for _ in range(8)]
    images = [torch.randn(8, 3, 12, 12) for _ in range(4)]
    names |= {"segmenter": Segmenter(), "segmented": [(batch, torch.randint(12, (8, 12, 12))) for batch in images]}
    names |= {"targets": targets, "matching_loss": lambda boxes, target: (boxes - target["boxes"]).abs().mean()}
    names |= {
        "tokenizer": lambda text: [ord(letter) % 64 for letter in text],
        "texts": ["a short text", "and more"] * 9,
    }
    sizes = [torch.randn(2, 3, 224, 224), torch.randn(2, 3, 256, 320)]
    return names | {"model": Images(), "loader": sizes, "graph_network": GraphNetwork()}


def training() -> Namespace:
    model = classifier(16)
    data = labelled(model, 128)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    names = {"model": model, "data": data, "images": data[0][0], "loader": data * 8, "loss": F.cross_entropy}
    return names | {"optimizer": optimizer}


def saving() -> Namespace:
    model, fresh_model = classifier(), classifier()
    result = sc.prune(model, labelled(model, 64), {"macs": 0.5}, by="l1", progress=False)
    return {"sc": sc, "result": result, "model": result.model, "fresh_model": fresh_model}


def convolutions() -> nn.Module:
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)
    return nn.Sequential(*layers).eval()


def below_the_unit() -> Namespace:
    model = convolutions()
    batches = [torch.randn(16, 3, 8, 8) for _ in range(4)]
    data = [(inputs, model(inputs).argmax(1)) for inputs in batches]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def train(network: nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> None:
        for inputs, labels in data * epochs:
            optimizer.zero_grad()
            F.cross_entropy(network(inputs), labels).backward()
            optimizer.step()

    fresh_models = ("fresh_model", "another_fresh_model", "third_fresh_model")
    names = {"secateur": sc, "torch": torch, "model": model, "data": data, "test_data": data, "images": batches[0]}
    names |= {name: convolutions() for name in fresh_models}
    return names | {"optimizer": optimizer, "loader": data * 5, "loss": F.cross_entropy, "train": train}


SETTINGS: dict[str, Callable[[], Namespace]] = {
    "README.md": pruning,
    "docs/index.md": pruning,
    "docs/overview.md": pruning,
    "docs/coming-from.md": migrating,
    "docs/criteria.md": criteria,
    "docs/repair.md": repairing,
    "docs/data.md": forms_of_data,
    "docs/training.md": training,
    "docs/files.md": saving,
    "docs/pivoting.md": below_the_unit,
    "docs/spp.md": below_the_unit,
    "docs/unification.md": below_the_unit,
}
"""The names that the code of a page uses without defining them; each block runs after those above it."""


def check_trainers(names: Namespace) -> None:
    """Compute the losses of the classes that docs/repair.md defines for trainers."""
    dense, batch = names["dense"], names["loader"][0]
    names["small"] = dense
    loss, outputs = names["Distilled"]().compute_loss(dense, {"input": batch}, return_outputs=True)
    assert abs(float(loss.detach())) < 1e-6 and torch.equal(outputs, dense(batch))
    assert abs(float(names["Module"]().training_step(batch, 0).detach())) < 1e-6


def check_loaded(names: Namespace) -> None:
    """Check that the loaded model of docs/files.md computes what the result's does."""
    inputs = torch.randn(3, 4)
    assert torch.equal(names["model"](inputs), names["result"].model(inputs))


CHECKS: dict[str, Callable[[Namespace], None]] = {"docs/repair.md": check_trainers, "docs/files.md": check_loaded}
"""What must hold once the code of a page has run."""

NOT_RUN = {
    "docs/design.md": "signatures and an outline, not calls",
    "docs/language.md": "code of programs that `torchrun` launches; tests/integration/test_ranks.py runs both",
    "docs/lean.md": "15 rounds of 300 steps take 20 s for the smallest network; tests/unit/sparsity runs `lean`",
}
"""The pages whose code no test runs, with the reason."""

BLOCKS_NOT_RUN = {
    ("docs/spp.md", "from secateur.sparsity import SPP"): "18,000 steps of the loop until all columns are chosen; "
    "tests/support/spp_trainings.py runs such a loop",
}
"""The blocks of the other pages that no test runs, by page and first line, with the reason."""
