"""The search for the cuts that the configuration of a model can say, before anything is scored.

Models are built from other configurations without memory for their weights (torch's "meta" device). The axes that are
shorter where one number is smaller show the groups that the number counts. Trial cuts show the numbers that follow.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import nn

from secateur.coupling.config_layout import ConfigLayout, TiedGroups
from secateur.coupling.cost import WHOLE
from secateur.coupling.group import Group
from secateur.coupling.network import Kept, Network
from secateur.surgery.aliased_model import AliasedModel
from secateur.surgery.config_numbers import ShapeNumber, derived_numbers, layer_lists, shape_numbers
from secateur.surgery.configured_models import (
    ConfiguredShapes,
    Shapes,
    build_configured,
    difference_from_cut,
    shapes_of_state,
)
from secateur.surgery.model_config import config_of
from secateur.surgery.recipe import make_recipe
from secateur.surgery.tied_steps import units_without_steps
from secateur.utils.failure_text import failure_text

MOST_SIZES, MOST_CHANGES = 12, 64


class LayoutSearch:
    """The search for the cuts of a network that the configuration of its model can say.

    Args:
        model: the dense model.
        network: its trace.
    """

    def __init__(self, model: nn.Module, network: Network) -> None:
        self.network = network
        self._config = config_of(model)
        self._shapes = ConfiguredShapes(model, self._config)
        self._alias = AliasedModel(model)
        self._model = model
        self.dense = shapes_of_state(model)

    def layout(self) -> ConfigLayout:
        """Return the groups that are tied by numbers of the configuration, and the lists of layers."""
        derived_values = derived_numbers(self._shapes, self.dense)
        numbers = shape_numbers(self._shapes, self.dense, derived_values)
        base = ConfigLayout((), tuple(layer_lists(self._model, self._shapes, self.dense)), derived_values)
        ties = [self._tied(groups, numbers, base) for groups in self._classes(numbers)]
        return replace(base, ties=self._compatible([tie for tie in ties if tie is not None], derived_values))

    @property
    def is_described(self) -> bool:
        """True if the configuration says the shape of the dense model."""
        return self._shapes.of({}) == self.dense

    def _classes(self, numbers: Sequence[ShapeNumber]) -> list[list[Group]]:
        """Return the groups whose axes depend on the same numbers, directly or through further groups."""
        classes: list[tuple[set[str], list[Group]]] = []
        for group in self.network.groups:
            if group.block_paths:
                continue
            names = {number.name for number in numbers if number.axes & self._axes(group)}
            groups = [group]
            separate_classes = []
            for other_names, other_groups in classes:
                if names & other_names:
                    names, groups = names | other_names, [*other_groups, *groups]
                else:
                    separate_classes.append((other_names, other_groups))
            classes = [*separate_classes, (names, groups)]
        return [groups for names, groups in classes if names]

    def _axes(self, group: Group) -> set[tuple[str, int]]:
        return {(member.tensor, member.axis) for member in group.members}

    def _tied(self, groups: Sequence[Group], numbers: Sequence[ShapeNumber], base: ConfigLayout) -> TiedGroups | None:
        """Return the tie of some groups in the smallest steps that the configuration can say; None if it can't."""
        axes = set().union(*map(self._axes, groups))
        sizes = {group.size for group in groups}
        fields = [number for number in numbers if number.axes & axes or (number.value in sizes and not number.axes)]
        names = tuple(group.name for group in groups)
        common = math.gcd(*sizes)
        for steps in list(_divisors(common))[:MOST_SIZES]:
            kept = units_without_steps(self.network, (TiedGroups(names, steps, {}),), 1)
            expected_shapes = self._expected(kept)
            nearest: tuple[float, TiedGroups] | None = None
            for changed_fields in itertools.islice(_field_changes(fields, steps), MOST_CHANGES):
                smaller = {name: value * (steps - 1) // steps for name, value in changed_fields.items()}
                if self._shapes.of({**base.derived, **smaller}) == expected_shapes:
                    tie = TiedGroups(names, steps, changed_fields)
                    difference = self.difference(replace(base, ties=(tie,)), kept)
                    if isinstance(difference, float) and (nearest is None or difference < nearest[0]):
                        nearest = difference, tie
            if nearest is not None:
                return nearest[1]
        return None

    def _compatible(self, ties: Sequence[TiedGroups], derived: Mapping[str, int]) -> tuple[TiedGroups, ...]:
        """Return ties in steps as small as the configuration allows for all others (a width is a multiple of heads).

        A tie that goes with no step of another is left out.
        """
        compatible: list[TiedGroups] = []
        for tie in ties:
            for position, other in enumerate(compatible):
                pairs = itertools.product(_divisors(other.steps), _divisors(tie.steps))
                ranked_steps = sorted(pairs, key=lambda steps: -steps[0] * steps[1])
                fitting = (steps for steps in ranked_steps if self._go_together((other, tie), steps, derived))
                chosen_steps = next(fitting, None)
                if chosen_steps is None:
                    break
                compatible[position], tie = replace(other, steps=chosen_steps[0]), replace(tie, steps=chosen_steps[1])
            else:
                compatible.append(tie)
        return tuple(compatible)

    def _go_together(
        self, ties: tuple[TiedGroups, TiedGroups], steps: tuple[int, int], derived: Mapping[str, int]
    ) -> bool:
        """Return True if the configuration takes two ties at all sizes of the one and several of the other."""
        fewer, larger = sorted(zip(steps, ties, strict=True), key=lambda pair: pair[0])
        for kept_many in dict.fromkeys((larger[0] - 1, larger[0] // 2 or 1, 1)):
            for kept_few in range(1, min(fewer[0], MOST_CHANGES) + 1):
                sizes = {
                    name: value * kept // count
                    for (count, tie), kept in ((fewer, kept_few), (larger, kept_many))
                    for name, value in tie.fields.items()
                }
                if self._shapes.changed_config({**derived, **sizes}) is None:
                    return False
        return True

    def _expected(self, kept: Kept) -> Shapes:
        """Return the shapes of a cut model, by the names of all tensors of its state, those that are tied included."""
        mask = self.network.mask(kept)
        lengths = {
            (member.tensor, member.axis): int(mask[member.units].sum())
            for member in self.network.members
            if member.axis != WHOLE
        }
        parameters = [*self._model.named_parameters(remove_duplicate=False)]
        name_of = {id(tensor): name for name, tensor in reversed(parameters)}
        state = self._model.state_dict(keep_vars=True)
        return {
            name: tuple(
                lengths.get((name_of.get(id(tensor), name), axis), length) for axis, length in enumerate(tensor.shape)
            )
            for name, tensor in state.items()
        }

    def difference(self, layout: ConfigLayout, kept: Kept) -> float | str:
        """Return how much a model of the configuration differs from a cut model, or why they can't be compared."""
        network = replace(self.network, layout=layout)
        try:
            with self._alias.cut(make_recipe(self._alias.model, network, kept, folds=False)) as small:
                return difference_from_cut(small, build_configured(small, config_of(small)), network)
        except Exception as failure:  # noqa: BLE001 (the model's own code, on shapes that it may refuse)
            return " ".join(failure_text(failure).split())


def _divisors(number: int) -> Iterator[int]:
    """Yield the divisors of a number above 1, the largest first."""
    yield from (count for count in range(number, 1, -1) if number % count == 0)


def _field_changes(fields: Sequence[ShapeNumber], steps: int) -> Iterator[Mapping[str, int]]:
    """Yield choices of numbers that follow, the fewest first."""
    divisible = [number for number in fields if number.value % steps == 0]
    for count in range(1, len(divisible) + 1):
        for fields_to_change in itertools.combinations(divisible, count):
            yield {number.name: number.value for number in fields_to_change}
