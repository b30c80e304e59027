"""Networks of the zoo with half of their units in a plan."""

from torch import nn

import secateur as sc
from secateur.coupling.plan import Plan
from zoo import grow


def halved(name: str) -> tuple[nn.Module, sc.Network, Plan]:
    model, example = grow(name)
    network = sc.trace(model, example)
    return model, network, sc.plan(network, sc.score(network, by="l2"), keep={"units": 0.6})
