"""The choice of modules that run a program of their own code: as few as possible."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import Tensor

from secateur.coupling.network import Kept, Network
from secateur.coupling.shape_literals import ShapeLiteral
from secateur.graph.module_program import ModuleProgram, common_lengths
from secateur.graph.operators import module_path
from secateur.surgery.diagnose import ancestors, groups_inside_module, same_class_modules
from secateur.surgery.trial_cut import TrialCutter
from secateur.surgery.trial_failures import Failure

Programs = Mapping[str, ModuleProgram]


def with_module_programs(trials: TrialCutter, network: Network, kept: Kept, failure: Failure) -> Network | None:
    """Return the network in which modules run programs of their code, if a trial gets further with them.

    The modules are those whose own code holds a number that should have changed: first those within the module that
    failed, then those within what holds it. What the trial does not need stays as it is; modules of the same class and
    switches share what was found.
    """
    changed_modules = _changed_modules(network, network.mask(kept))
    candidates: Programs = {}
    for holder in ancestors(failure.path) or [""]:
        programs = _replacement_programs(
            trials, network, (path for path in changed_modules if groups_inside_module(path, holder))
        )
        if programs.keys() <= candidates.keys():
            continue
        candidates = programs
        if trials.passes(_with_further_programs(network, programs), kept, failure):
            necessary = _needed_programs(trials, network, kept, failure, programs)
            same_class = (other for path in necessary for other in same_class_modules(trials.model, path))
            return _with_further_programs(network, {**_replacement_programs(trials, network, same_class), **necessary})
    return None


def without_idle_programs(network: Network) -> Network:
    """Remove the programs of modules whose numbers no plan changes."""
    alive = {size.node.name: module_path(size.node) for size in network.sizes if _is_alive(size)}
    programs = network.module_programs
    busy = [path for path in dict.fromkeys(alive.values()) if path in programs]  # in the order of the program
    return replace(network, module_programs={path: programs[path] for path in busy})


def with_fixed_lengths(trials: TrialCutter, network: Network, kept: Kept) -> Network:
    """Let programs of modules require the lengths of their inputs that no cut changes.

    Args:
        trials: of the model.
        network: the network.
        kept: a part of every group.
    """
    if not network.module_programs:
        return network
    recorded_shapes = trials.input_shapes(network, kept)
    fixed_programs = {}
    for path, program in network.module_programs.items():
        dense = trials.slices(network).program_of(path, network.sizes)
        assert dense is not None
        # A module of which this cut changes no number was not seen to run its program: its lengths are left open.
        unseen = {name: (None,) * len(lengths) for name, lengths in dense.shapes.items()}
        shapes = {
            name: common_lengths(dense.shapes[name], recorded_shapes.get(path, {}).get(name, open_))
            for name, open_ in unseen.items()
        }
        fixed_programs[path] = replace(program, shapes=shapes)
    return replace(network, module_programs=fixed_programs)


def _is_alive(size: ShapeLiteral) -> bool:
    return bool((size.units >= 0).all(1).any())


def _changed_modules(network: Network, mask: Tensor) -> list[str]:
    """Return the modules whose own code contains a number that changes, and that run no program yet."""
    paths = (module_path(size.node) for size in network.sizes if size.remaining(mask) != len(size.units))
    return [path for path in dict.fromkeys(paths) if path not in network.module_programs]


def _replacement_programs(trials: TrialCutter, network: Network, paths: Iterable[str]) -> dict[str, ModuleProgram]:
    """Return the programs of modules whose code contains a number that counts units, if it can be expressed."""
    counting = {size.node.name for size in network.sizes if _is_alive(size)}
    candidates = {path: trials.slices(network).program_of(path, network.sizes) for path in dict.fromkeys(paths)}
    return {  # the lengths of their inputs change with what is cut
        path: replace(program, shapes={})
        for path, program in candidates.items()
        if program and counting & program.operators.keys()
    }


def _needed_programs(
    trials: TrialCutter, network: Network, kept: Kept, failure: Failure, programs: Programs
) -> Programs:
    """Select the necessary programs, tried for all modules of one class at once."""
    necessary = dict(programs)
    for path in programs:
        same_class = {path, *same_class_modules(trials.model, path)} & necessary.keys()
        fewer = {other: program for other, program in necessary.items() if other not in same_class}
        if path in necessary and fewer and trials.passes(_with_further_programs(network, fewer), kept, failure):
            necessary = fewer
    return necessary


def _with_further_programs(network: Network, programs: Programs) -> Network:
    return replace(network, module_programs={**network.module_programs, **programs})
