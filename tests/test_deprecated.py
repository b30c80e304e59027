"""Former names of public things: they work, and warn."""

import importlib

import pytest

import secateur

RENAMED = [
    ("secateur.stopping.Error", "secateur.stopping.StandardError"),
    ("secateur.stopping.Known", "secateur.stopping.SelectionConfident"),
    ("secateur.tuning.distillation", "secateur.training.distillation"),
    ("secateur.training.taylor.TaylorSchedule", "secateur.training.TaylorSchedule"),
    ("secateur.sparsity.unification.shared.shared", "secateur.sparsity.unified_fast_network"),
]


def imported(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("former", "current"), RENAMED)
def test_a_former_name_warns_and_gives_the_same(former: str, current: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"use {current}"):
        value = imported(former)
    assert value is imported(current)


@pytest.mark.parametrize("former", [former for former, _ in RENAMED])
def test_other_names_are_attribute_errors(former: str) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        imported(f"{former.rpartition('.')[0]}.nonsense")


def test_former_attributes_of_training_methods_warn_and_give_the_same() -> None:
    for method_class in (secateur.training.TaylorSchedule, secateur.sparsity.SPP):
        method = object.__new__(method_class)
        method.is_finished = True
        with pytest.warns(DeprecationWarning, match="done is now is_finished") as warned:
            assert method.done
        assert warned[0].filename == __file__
