"""The laws: every network of the zoo, under every plan that hypothesis can draw."""

import copy
import pickle
import warnings
from collections import Counter
from collections.abc import Callable
from math import prod
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

import secateur as sc
from random_plans import drawn, dropped, means_of, plan_of, run, traced
from secateur.allocation.build_sequence import build_sequence
from secateur.coupling import operator_results
from secateur.coupling.cost import Cost
from secateur.coupling.operator_results import counted_macs, recorded_shapes, results_of
from secateur.coupling.prefix_cost import PrefixCost
from secateur.coupling.residual_blocks import blocks_of, without_blocks
from secateur.data.conversion import as_batches, example_batches
from secateur.graph.contexts import fused_layers_disabled, isolated_evaluation
from secateur.graph.cursor import ProgramCursor, ValuesOver
from secateur.graph.operators import arguments, operator_name, with_argument
from secateur.graph.parametrizations import bake_parametrizations, needs_folding
from secateur.importance.scores import GroupScores
from secateur.masking.ablation import run_masked
from secateur.masking.operands import operand
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.surgery.verify import output_difference
from zoo import ZOO, grow

NAMES = list(ZOO)
seeds = st.integers(0, 2**32 - 1)
plans = settings(max_examples=6, deadline=None, derandomize=True)
few_plans = settings(plans, max_examples=3)  # of laws that each make several plans


def some_scores(network: sc.Network, seed: int) -> sc.Scores:
    return sc.score(network, by="random", seed=seed)


@pytest.mark.parametrize("name", NAMES)
def test_the_groups_are_those_a_person_would_name(name: str) -> None:
    _, _, network = traced(name)
    assert {group.name: group.size for group in network.groups} == ZOO[name].groups
    reasons = {frozen.name: frozen.reason for frozen in network.frozen}
    outputs = {frozen.name for frozen in network.frozen if "is the network's output" in frozen.reason}
    for layer, reason in ZOO[name].frozen.items():
        assert reason in reasons[layer]
    explained = set(ZOO[name].frozen) | outputs
    unexplained = {layer: reason for layer, reason in reasons.items() if layer not in explained}
    assert not unexplained, unexplained


@pytest.mark.parametrize("name", NAMES)
def test_what_the_export_recorded_of_operators_is_what_a_run_shows(name: str) -> None:
    _, _, network = traced(name)
    program, example = network.program, network.example
    seen = results_of(program, example)
    with patch.object(operator_results, "results_of", side_effect=AssertionError("run")):
        shapes = recorded_shapes(program, example)
        macs = counted_macs(program, example, seen.macs)
    tensors = {
        node for node, value in seen.shapes.items() if any(isinstance(leaf, torch.Size) for leaf in _sizes(value))
    }
    assert {node: _sizes(shapes[node]) for node in tensors} == {node: _sizes(seen.shapes[node]) for node in tensors}
    by_torch = {node: count for node, count in seen.macs.items() if count}
    assert {node: macs[node] for node in by_torch} == by_torch


@pytest.mark.parametrize("name", NAMES)
def test_what_tracing_finds_is_as_it_was(name: str, golden_section: Callable[[str, str, str], None]) -> None:
    """A change of coupling that finds less, or couples more, breaks no other law."""
    _, _, network = traced(name)
    numbers = Counter(f"{operator_name(size.node)}.{size.argument}" for size in network.sizes)
    attributes = Counter(f"{update.path}.{update.attribute}" for update in network.attribute_updates)
    lines = [
        str(network),
        f"consumers: {len(network.consumers)}, operators with MACs: {len(network.work)}",
        f"numbers: {_counts(numbers)}",
        f"attributes: {_counts(attributes)}",
    ]
    golden_section("zoo.txt", name, "\n".join(lines))


def _counts(numbers: Counter[str]) -> str:
    return ", ".join(f"{name} x{count}" for name, count in sorted(numbers.items()))


@pytest.mark.parametrize("name", NAMES)
def test_consumers_of_a_group_are_those_that_read_its_units(name: str) -> None:
    _, _, network = traced(name)
    for group in network.groups:
        readers = tuple(consumer for consumer in network.consumers if group.owns(consumer.units))
        assert network.consumers_of(group) == readers
        assert network.consumers_of(copy.copy(group)) == readers


def _sizes(value: Any) -> list[Any]:
    return pytree.tree_leaves(value, is_leaf=lambda leaf: isinstance(leaf, torch.Size))


@pytest.mark.parametrize("name", NAMES)
def test_every_group_of_the_zoo_is_alive(name: str) -> None:
    """Without half of its units the output is another: the laws are not about nothing."""
    _, _, network = traced(name)
    batch = network.example
    dense = run_masked(network, batch, network.mask({}), {})
    for group in network.groups:
        half = {group.name: torch.arange(group.size // 2)}
        assert output_difference(run_masked(network, batch, network.mask(half), {}), dense)[0] > 1e-3, group.name


@pytest.mark.parametrize("removal", ["zero", "mean"])
@pytest.mark.parametrize("name", NAMES)
@plans
@given(seed=seeds)
def test_law_1_cut_equals_masked(name: str, removal: str, seed: int) -> None:
    model, example, network = traced(name)
    means = means_of(name) if removal == "mean" else {}
    kept = drawn(network, seed)
    small = sc.cut(model, plan_of(network, kept, means))
    with torch.random.fork_rng():
        torch.manual_seed(seed % 1000)
        fresh = network.example.map(lambda t: torch.randn_like(t) if t.is_floating_point() else t)
    worst, allowed = output_difference(run(small, fresh), run_masked(network, fresh, network.mask(kept), means))
    assert worst <= allowed
    assert isinstance(small, type(model)) or network.as_program or needs_folding(model)


@pytest.mark.parametrize("name", NAMES)
def test_law_1_cut_equals_masked_where_one_group_alone_is_cut(name: str) -> None:
    """Code may compute a number of one group's units from the width of another, which stays whole here."""
    model, _, network = traced(name)
    for group in network.groups:
        count = max(group.size // 2 // group.multiple * group.multiple, group.fewest)
        kept = {group.name: torch.arange(group.size - count, group.size)}
        small = sc.cut(model, plan_of(network, kept, {}))
        masked = run_masked(network, network.example, network.mask(kept), {})
        worst, allowed = output_difference(run(small, network.example), masked)
        assert worst <= allowed, group.name


@pytest.mark.parametrize("name", NAMES)
@plans
@given(seed=seeds)
def test_law_1_values_that_hold_what_stays_alone_lead_to_the_masked_output(name: str, seed: int) -> None:
    """From the inputs on, and from the dense network's values before the first operator that misses units."""
    model, _, network = traced(name)
    kept, program = drawn(network, seed), network.program
    pruned = EmbeddedPrunedNetwork.of_kept(network, kept)
    masked = run_masked(network, network.example, network.mask(kept), {})
    stop = len(program.nodes) - 1
    with isolated_evaluation(model):
        for start in {program.first, max(min(pruned.first_cut, stop), program.first)}:
            cursor = ProgramCursor(program, [network.example])
            (state,) = cursor.start(0, (None,))
            state = cursor.advance(state, start, program.fixed())
            state = cursor.advance(state, stop, pruned.fixed(start), pruned.handlers())
            output = program.finish(ValuesOver(state.values, pruned.fixed(stop)))
            assert output_difference(output, masked)[0] < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_law_2_an_empty_plan_is_the_identity(name: str) -> None:
    model, _, network = traced(name)
    everything = {group.name: torch.arange(group.size) for group in network.groups}
    for kept in ({}, everything):
        small = sc.cut(model, plan_of(network, kept, means_of(name)))
        same_names = zip(bake_parametrizations(model).state_dict().items(), small.state_dict().items(), strict=True)
        for (key, before), (_, after) in same_names:
            assert torch.equal(before, after), key
        assert network.cost(kept) == network.cost()


@pytest.mark.parametrize("name", NAMES)
@few_plans
@given(seed=seeds, round_to=st.sampled_from([1, 2, 4]))
def test_law_2_more_pruning_never_gives_a_larger_network(name: str, seed: int, round_to: int) -> None:
    _, _, network = traced(name)
    if not network.groups:
        return
    scores, before = some_scores(network, seed), None
    for keep in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5):
        try:
            plan = sc.plan(
                network, scores, keep={"params": keep}, round_to=round_to, allocation="global",
                dropped=dropped(network, seed),
            )  # fmt: skip
        except sc.SecateurError as error:
            assert "smallest reachable" in str(error)
            break
        assert all(len(indices) >= network[name].fewest for name, indices in plan.kept.items())
        if before is not None:
            assert plan.cost.params <= before.cost.params
            assert plan.cost.macs <= before.cost.macs
            assert all(set(plan.kept[g].tolist()) <= set(before.kept[g].tolist()) for g in plan.kept)
        before = plan


@pytest.mark.parametrize("name", NAMES)
@plans
@given(seed=seeds, unit=st.sampled_from(["params", "macs", "bytes", "units"]), share=st.floats(0.3, 1.0))
def test_law_3_the_budget_is_met_within_one_unit(name: str, seed: int, unit: str, share: float) -> None:
    _, _, network = traced(name)
    if not network.groups:
        return
    scores = some_scores(network, seed)
    gone = dropped(network, seed)
    search = build_sequence(network, scores, "uniform", 1, 1, dropped=gone)
    try:
        plan = sc.plan(network, scores, keep={unit: share}, dropped=gone)
    except sc.SecateurError as error:
        assert search.remaining(len(search.order), [unit])[unit] > share
        assert "smallest reachable" in str(error)
        return
    steps = search.fewest_steps_within({unit: share})
    assert search.remaining(steps, [unit])[unit] <= share
    assert steps == 0 or search.remaining(steps - 1, [unit])[unit] > share
    assert plan.cost == network.cost(search.kept(steps))


@pytest.mark.parametrize("name", NAMES)
def test_law_4_memory_never_changes_a_result(name: str) -> None:
    _, example, network = traced(name)
    if not network.groups:
        return
    only = min(without_blocks(network).groups, key=lambda group: group.size).name  # blocks beside others: unscored
    options = {"only": only, "coalitions": 30, "seed": 3, "progress": False}
    data = [example_batches(example, torch.device("cpu"))[0]]
    with pytest.raises(sc.SecateurError, match="one step needs") as refused:
        sc.score(network, data, **options, memory=1)
    least = int(str(refused.value).split("one step needs ")[1].split(";")[0].replace(",", ""))
    much, little = (sc.score(network, data, **options, memory=memory) for memory in (1 << 28, least))
    assert torch.equal(much[only].values, little[only].values)
    assert torch.equal(much[only].errors, little[only].errors)


def magnitude(output: Any, dense: Any) -> Tensor:
    leaves = torch.utils._pytree.tree_leaves(output)
    return torch.stack([leaf.float().square().reshape(len(leaf), -1).sum(1) for leaf in leaves]).sum(0)


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {
        "tensors": {name: tensor.detach().clone() for name, tensor in model.state_dict().items()},
        "identities": [id(parameter) for parameter in model.parameters()],
        "training": [module.training for module in model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "rng": torch.get_rng_state(),
        "attributes": [
            sorted(map(str, vars(module).items())) for module in model.modules() if not list(module.children())
        ],
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.mark.parametrize("name", NAMES)
def test_law_5_the_users_model_is_untouched(name: str) -> None:
    model, example = grow(name, seed=1)
    model.train()
    parameters = list(model.parameters())
    parameters[0].requires_grad_(False)
    parameters[-1].grad = torch.ones_like(parameters[-1])
    next(model.children(), model).register_forward_hook(lambda module, args, output: None)
    before = snapshot(model)
    network = sc.trace(model, example)
    data = [example_batches(example, torch.device("cpu"))[0]]
    if network.groups:
        one = min(network.groups, key=lambda group: group.size).name
        sc.score(network, data, by="shapley", only=one, coalitions=8, loss=magnitude, progress=False)
        for by in ("l1", "apoz", "taylor"):
            scores = sc.score(network, data, by=by, loss=magnitude, progress=False)
        sc.cut(model, sc.plan(network, scores, keep={"units": 0.7}))
    after = snapshot(model)
    for key in before:
        assert same(before[key], after[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_law_6_the_cut_model_lives_on(name: str) -> None:
    model, _, network = traced(name)
    kept = drawn(network, 11)
    small = sc.cut(model, plan_of(network, kept, means_of(name)))
    batch = network.example
    expected = run(small, batch)
    assert output_difference(run(copy.deepcopy(small), batch), expected)[0] == 0
    exported = torch.export.export(small, tuple(batch.args), dict(batch.kwargs), strict=False)
    with torch.no_grad():
        assert output_difference(exported.module()(*batch.args, **batch.kwargs), expected)[0] < 1e-5
    if not network.as_program:  # programs are saved as torch saves them
        assert output_difference(run(pickle.loads(pickle.dumps(small)), batch), expected)[0] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch._dynamo.reset()
        compiled = torch.compile(small, backend="eager")
        assert output_difference(run(compiled, batch), expected)[0] < 1e-5
    learner = copy.deepcopy(small).train()
    output = learner(*batch.args, **batch.kwargs)
    sum(leaf.float().square().sum() for leaf in torch.utils._pytree.tree_leaves(output)).backward()
    dense = copy.deepcopy(bake_parametrizations(model)).train()
    output = dense(*batch.args, **batch.kwargs)
    sum(leaf.float().square().sum() for leaf in torch.utils._pytree.tree_leaves(output)).backward()
    reached = {key for key, parameter in dense.named_parameters() if parameter.grad is not None}
    for key, parameter in learner.named_parameters():
        assert parameter.grad is not None or key not in reached, key


@pytest.mark.parametrize("name", NAMES)
def test_law_7_nan_reaches_what_the_labels_say(name: str) -> None:
    """An independent oracle: NaN in a unit's parameters turns up at its places in what readers read, nowhere else."""
    model, _, network = traced(name)
    if any(consumer.is_inner for consumer in network.consumers) or ZOO[name].options.get("kinds") == "blocks":
        pytest.skip("what a recurrent layer says to itself, or a block to its sum, reaches all that follows")
    for group in network.groups:
        if not any(member.is_producer for member in group.members):  # entries of a constant that a layer reads
            continue
        unit = group.offset + group.size // 2
        poisoned = copy.deepcopy(bake_parametrizations(model))
        tensors = {**dict(poisoned.named_parameters()), **dict(poisoned.named_buffers())}
        for member in group.members:
            if member.is_producer:
                tensors[member.tensor].data.movedim(member.axis, 0)[member.units == unit] = float("nan")
        program = network.program
        positions = _nan_places(network, group, {node: tensors[key] for node, key in program.state_names.items()})
        for consumer in _watched(network, group):
            if arguments(consumer.node)[consumer.argument] in program.state_only:
                continue  # a parameter holds NaN where it is poisoned itself, along other units' axes too
            assert positions[consumer] == torch.nonzero(consumer.units == unit).flatten().tolist(), (
                group.name,
                consumer.node,
            )
        assert positions["output"] == 0


OF_THE_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten.mkldnn_rnn_layer: lambda x, w_ih, w_hh, *_, **__: 2 * x[0] * x[1] * (prod(w_ih) + prod(w_hh)),
    torch.ops.aten._trilinear: lambda x, w, y, *_, **__: 2 * x[0] * prod(w),
}  # kernels that torch itself does not count


def _watched(network: sc.Network, group: Any) -> list[Any]:
    """The consumers that say where NaN in a group's entries turns up: all, but for those of other kinds of units that
    own the same entries. Experts hold neurons, and a block's branch has all channels of its stream."""
    if any(other.kind == "experts" for other in network.groups):
        return list(network.consumers_of(group))
    blocks = blocks_of(network)
    return [consumer for consumer in network.consumers if blocks is None or not blocks.owns(consumer.units)]


def _nan_places(network: sc.Network, group: Any, state: dict[Any, Tensor]) -> dict[Any, Any]:
    positions: dict[Any, Any] = {}
    handlers: dict[Any, Any] = {}
    for consumer in _watched(network, group):
        if arguments(consumer.node)[consumer.argument] in network.program.state_only and not group.owns(consumer.units):
            continue
        others_of_node = handlers.get(consumer.node)

        def handler(target: Any, args: Any, kwargs: Any, consumer: Any = consumer, before: Any = others_of_node) -> Any:
            x = operand(consumer, args, kwargs)
            others = [dim for dim in range(x.dim()) if dim != consumer.dim]
            positions[consumer] = torch.nonzero(x.isnan().float().amax(others)).flatten().tolist()
            args, kwargs = with_argument(consumer.node, args, kwargs, consumer.argument, x.nan_to_num())
            # A norm passes units on: they stay poisoned. What they are multiplied with is cleaned like the sum.
            if operator_name(consumer.node) in ("linear", "matmul", "mm", "bmm", "addmm"):
                last = 2 if operator_name(consumer.node) == "addmm" else 1
                read = args[last].isnan().all(0 if operator_name(consumer.node) == "linear" else -1, keepdim=True)
                args = (*args[:last], torch.where(read, 0.0, args[last]), *args[last + 1 :])
            if operator_name(consumer.node) == "scaled_dot_product_attention" and consumer.argument == "query":
                args = (args[0], torch.where(args[1].isnan().all(-2, keepdim=True), 0.0, args[1]), *args[2:])
            result = before(target, args, kwargs) if before else target(*args, **kwargs)
            if operator_name(consumer.node) in ("layer_norm", "group_norm", "rms_norm"):
                return torch.where(x.isnan(), x, result)
            return result

        handlers[consumer.node] = handler
    program = network.program
    values = {
        **program.fixed(),
        **{node: tensor.detach() for node, tensor in state.items()},
        **program.bind(network.example),
    }
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention loses NaN
        values = program.run(values, program.first, len(program.nodes) - 1, handlers, keep=program.output_nodes)
    leaves = torch.utils._pytree.tree_leaves(program.finish(values))
    positions["output"] = sum(int(leaf.isnan().sum()) for leaf in leaves if isinstance(leaf, Tensor))
    return positions


@pytest.mark.parametrize("name", NAMES)
@plans
@given(seed=seeds)
def test_law_9_predicted_costs_are_the_measured_ones(name: str, seed: int) -> None:
    model, _, network = traced(name)
    plan = plan_of(network, drawn(network, seed), means_of(name) if seed % 2 else {})
    # torch.einsum multiplies entry by entry along an axis of length 1, which the counter leaves out
    assume(name != "einsums" or all(len(kept) > 1 for kept in plan.kept.values()))
    for cost, measured in ((plan.dense, bake_parametrizations(model)), (plan.cost, sc.cut(model, plan))):
        parameters, buffers = list(measured.parameters()), list(measured.buffers())
        assert cost.params == sum(tensor.numel() for tensor in parameters)
        assert cost.bytes == sum(tensor.numel() * tensor.element_size() for tensor in (*parameters, *buffers))
        with fused_layers_disabled(), FlopCounterMode(display=False, custom_mapping=OF_THE_CPU) as counter:
            run(measured, network.example)
        assert cost.macs * network.example.size * 2 == pytest.approx(
            counter.get_total_flops(), abs=network.example.size
        )


@pytest.mark.parametrize("name", NAMES)
def test_law_9_costs_by_counts_are_costs_by_masks(name: str) -> None:
    _, _, network = traced(name)
    others = without_blocks(network).groups
    groups, draws = others[: max(len(others) - 1, 1)], torch.Generator().manual_seed(0)
    blocks, gone = blocks_of(network), dropped(network, 1)
    base = (
        {}
        if blocks is None
        else {blocks.name: torch.tensor([path not in gone for path in blocks.block_paths]).nonzero()[:, 0]}
    )
    costs = PrefixCost(network, groups, mask=network.mask(base))
    kept = np.array([int(torch.randint(group.size + 1, (), generator=draws)) for group in groups])

    def by_mask(counts: np.ndarray) -> Cost:
        return network.cost(
            {**base, **{group.name: torch.arange(int(n)) for group, n in zip(groups, counts, strict=True)}}
        )

    assert costs.cost(kept) == by_mask(kept)
    steps = np.eye(len(groups), dtype=int)
    assert list(costs.after(kept, np.maximum(kept - 1, 0))) == [by_mask(np.maximum(kept - step, 0)) for step in steps]


def test_the_zoo_is_large_enough() -> None:
    assert len(ZOO) >= 20
    assert as_batches(torch.ones(1, 1))
    assert GroupScores.exact(torch.ones(2)).errors.tolist() == [0, 0]
