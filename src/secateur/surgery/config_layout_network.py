"""`layout="config"`: networks that lose only units whose number the model's configuration says."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from secateur.coupling.config_layout import ConfigLayout, LayerList
from secateur.coupling.group import Group
from secateur.coupling.network import Network
from secateur.coupling.new_biases import without_new_biases
from secateur.coupling.regroup import freeze_groups
from secateur.coupling.removable_blocks import find_blocks
from secateur.coupling.residual_blocks import of_blocks, with_blocks, without_blocks
from secateur.errors import OptionError
from secateur.surgery.adapters import merging_advice
from secateur.surgery.config_layout_search import LayoutSearch
from secateur.surgery.config_numbers import layer_lists
from secateur.surgery.configured_models import ConfiguredShapes, shapes_of_state
from secateur.surgery.tied_steps import kept_on_trial
from secateur.surgery.trial_cut import TrialCutter

NOT_SAID = "no number of the model's configuration says fewer of these units"


def with_shorter_lists(model: nn.Module, network: Network) -> Network:
    """Return the network so that lists of layers get shorter where blocks are left out.

    The caches of the transformers library go by the position of a layer, and by the number of layers in the
    configuration. Other models keep their lists, with the identity in the place of a block.

    Args:
        model: the dense model.
        network: its trace, with blocks as units.
    """
    config = getattr(model, "config", None)
    groups = [group for group in network.groups if group.block_paths]
    if not groups or not hasattr(config, "to_dict") or not hasattr(model, "save_pretrained"):
        return network
    with quiet_logs():
        lists = layer_lists(model, ConfiguredShapes(model, config), shapes_of_state(model))
    trials = TrialCutter(model)
    fitting = tuple(layers for layers in lists if _can_shorten(trials, network, groups[0], layers))
    return replace(network, layout=ConfigLayout(layers=fitting)) if fitting else network


def _can_shorten(trials: TrialCutter, network: Network, group: Group, layers: LayerList) -> bool:
    """Return True if a list of layers can get shorter by its first block that can be left out."""
    indices = [index for index, path in enumerate(group.block_paths) if path.rpartition(".")[0] == layers.path]
    if not indices:
        return False
    shorter = replace(network, layout=ConfigLayout(layers=(layers,)))
    kept = torch.tensor([index for index in range(group.size) if index != indices[0]], dtype=torch.long)
    return trials.run(shorter, {group.name: kept}, {}) is None


def with_config_layout(model: nn.Module, network: Network) -> Network:
    """Return the network with the units alone that the model's configuration can say the number of.

    Args:
        model: the dense model.
        network: its trace.

    Raises:
        OptionError: the model has no configuration, or one that does not describe it or any cut of it.
    """
    with quiet_logs():
        return _with_layout(model, network)


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Silence the library's remarks on configurations that are only tried, within a context."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _with_layout(model: nn.Module, network: Network) -> Network:
    search = LayoutSearch(model, network)
    title = f"{type(model).__name__}'s configuration"
    if not search.is_described:
        advice = merging_advice(model) or "load the model with from_pretrained, or "
        raise OptionError(
            f"layout='config' can't be kept: {title} does not say the shapes of its tensors; {advice}leave layout= out"
        )
    layout = search.layout()
    restricted_network = _restrict(network, layout)
    if not restricted_network.groups:
        raise OptionError(
            f"layout='config' can't be kept: {title} has no number that says fewer of the units that can be removed "
            f"({', '.join(sorted({group.kind for group in network.groups}))}); ask for other kinds=, or leave layout= "
            "out and save by `save`"
        )
    difference = search.difference(layout, kept_on_trial(restricted_network, layout))
    if isinstance(difference, str):
        raise OptionError(
            f"layout='config' can't be kept: a model of the cut configuration is another network than the cut model: "
            f"{difference}; leave layout= out and save by `save`"
        )
    return without_new_biases(restricted_network)


def _restrict(network: Network, layout: ConfigLayout) -> Network:
    """Return the network with the other groups frozen, and without blocks that are in no list of layers."""
    paths = {f"{layers.path}.{index}" for layers in layout.layers for index in range(layers.length)}
    groups_of_blocks = [group for group in network.groups if group.block_paths]
    removable = {path for group in groups_of_blocks for path in group.block_paths if path in paths}
    blocks = [block for block in find_blocks(network.program) if block.path in removable]
    tied_names = {name for tie in layout.ties for name in tie.groups}
    network_without_blocks = without_blocks(network)
    other_names = [
        group.name for group in network_without_blocks.groups if group.name not in tied_names and not group.block_paths
    ]
    if not tied_names:
        return replace(of_blocks(network, blocks), layout=layout)
    return replace(
        with_blocks(freeze_groups(network_without_blocks, dict.fromkeys(other_names, NOT_SAID)), blocks), layout=layout
    )
