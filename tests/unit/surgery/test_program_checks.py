"""Programs of modules: what they may use, the arguments that they take, and when two calls run the same one."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.coupling.module_slices import _calls_agree
from secateur.errors import StorageError, SurgeryError
from secateur.graph.module_program import ModuleProgram, ProgramStep, StateRef, Value
from secateur.surgery.program_checks import check_program
from secateur.surgery.program_modules import input_values

ADD = "aten.add.Tensor"


def step(result: str, *args: Any, operator: str = ADD) -> ProgramStep:
    return ProgramStep(operator, False, args, {}, (result,))


class Scaled(nn.Module):
    """A module with a parameter and a tensor that is a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(2)), torch.ones(2)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["x"] + self.scale + self.shift


PROGRAM = ModuleProgram(
    {"inputs": {"x": Value("x")}},
    (step("a", Value("x"), StateRef("scale")), step("b", Value("a"), StateRef("shift"))),
    Value("b"),
)


def test_a_program_may_use_parameters_attributes_and_earlier_results() -> None:
    check_program(Scaled(), "", PROGRAM)


@pytest.mark.parametrize(
    ("steps", "missing"),
    [
        ((step("a", Value("x"), StateRef("other")),), "other"),
        ((step("a", Value("x"), StateRef("other.scale")),), "other.scale"),
        ((step("a", Value("b"), Value("x")), step("b", Value("a"), Value("x"))), "b"),
    ],
)
def test_a_program_that_uses_what_nothing_gives_is_refused(steps: tuple[ProgramStep, ...], missing: str) -> None:
    with pytest.raises(StorageError, match=f"uses {missing}, which nothing gives"):
        check_program(Scaled(), "", replace(PROGRAM, steps=steps))


def test_arguments_in_a_dict_are_bound_by_key() -> None:
    x = torch.zeros(2)
    assert input_values(Scaled(), PROGRAM, ({"x": x},), {})["x"] is x


@pytest.mark.parametrize("argument", [[torch.zeros(2)], {"y": torch.zeros(2)}, {}, None])
def test_other_arguments_in_place_of_a_dict_are_refused(argument: Any) -> None:
    with pytest.raises(SurgeryError, match="is not a dict of"):
        input_values(Scaled(), PROGRAM, (argument,), {})


def test_calls_that_differ_in_names_alone_agree() -> None:
    renamed = ModuleProgram(
        {"inputs": {"x": Value("y")}},
        (step("c", Value("y"), StateRef("scale")), step("d", Value("c"), StateRef("shift"))),
        Value("d"),
    )
    units = torch.arange(2)
    assert _calls_agree(PROGRAM, renamed, {})
    assert _calls_agree(PROGRAM, renamed, {"a": {("size", 0): units}, "c": {("size", 0): units.clone()}})
    assert not _calls_agree(PROGRAM, renamed, {"a": {("size", 0): units}, "c": {("size", 0): units + 2}})
    assert not _calls_agree(PROGRAM, renamed, {"a": {("size", 0): units}})


@pytest.mark.parametrize(
    "steps",
    [
        (step("a", Value("x"), StateRef("scale"), operator="aten.mul.Tensor"), PROGRAM.steps[1]),
        (step("a", Value("x"), StateRef("shift")), PROGRAM.steps[1]),
        (PROGRAM.steps[0], step("b", Value("x"), StateRef("shift"))),
        PROGRAM.steps[:1],
    ],
)
def test_calls_that_compute_something_else_do_not_agree(steps: tuple[ProgramStep, ...]) -> None:
    assert not _calls_agree(PROGRAM, replace(PROGRAM, steps=steps), {})
