"""Features of the last layer are compared where all of them are kept."""

import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.recovery.head_features import HeadPaths, head_paths
from secateur.surgery.recipe import recipe_of
from tuned_networks import PooledImages, cut_by_norm, random_images

pytestmark = untrained_networks


def test_last_features_are_compared_where_all_of_them_are_kept() -> None:
    torch.manual_seed(0)
    model, x = PooledImages().eval(), random_images()
    for only, expected in ((["body.0"], HeadPaths("head", "head")), (None, None)):
        small, plan = cut_by_norm(model, x, 0.5, **({"only": only} if only else {}))
        assert head_paths(model, small, plan.network, recipe_of(model, plan)) == expected


class Tied(nn.Module):
    """The first layer's weight is that of the last one, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide, self.narrow = nn.Linear(4, 8, bias=False), nn.Linear(8, 16), nn.Linear(16, 8)
        self.mixed = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.mixed(torch.relu(self.narrow(torch.relu(self.wide(self.first(x))))))
        return hidden @ self.first.weight


def test_a_last_layer_whose_weight_is_shared_has_no_features_to_compare() -> None:
    torch.manual_seed(0)
    model, x = Tied().eval(), torch.randn(20, 4)
    small, plan = cut_by_norm(model, x, 0.8, only=["wide"])
    assert head_paths(model, small, plan.network, recipe_of(model, plan)) is None


def test_features_of_one_of_two_heads_say_nothing_of_the_other() -> None:
    class TwoHeadsModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.policy, self.other, self.value = (nn.Linear(4, 16), nn.Linear(16, 3), nn.Linear(4, 16),
                                                              nn.Linear(16, 2))  # fmt: skip

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.policy(torch.relu(self.body(x))), self.value(torch.relu(self.other(x)))

    model, x = TwoHeadsModel(), torch.randn(8, 4)
    network = sc.trace(model, x)
    plan = sc.plan(network, sc.score(network, by="l1"), sizes={"body": 0.5})
    assert head_paths(model, sc.cut(model, plan), network, recipe_of(model, plan)) is None
