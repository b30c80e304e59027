"""The texts of docs/shapley.md beside its tables."""

ABOUT = """# Shapley values: error, speed, scaling

One run on one thread produced this page:

    python -m benchmarks shapley

Some sections come from further runs. The section on scaling was measured again by itself, with `--scaling`, after a
fault in the memory of the errors was corrected. The sections on bfloat16 and compilers and on the whole network's game
come from `--precision` and `--owen`. The curves are drawn from the table at the end, also by `--curves`. The sections
on published estimators, on the game after a refit and on throughput are from version 0.12.0 and its source on the way.
The rows of the first two name the processor: an AMD EPYC (torch 2.13.0), and for two thirds of the rows of the game
after a refit an Intel Xeon (torch 2.11.0). The others are from one thread of an x86-64 machine.

There are two networks: a VGG-like one (`benchmarks/networks/vgg.py`, 92.8 % on Fashion-MNIST) and the residual network
of the demo. The data are 256 (or 1,000) labelled test images. The loss is the cross entropy, the ablation is by zero,
and the aggregate is the mean over examples. *Error* is the squared error divided by the sum of squares of the true
values. The truth is a long run, which was checked against a long run of another estimator (`benchmarks/shapley/truth`).
An *evaluation* is one coalition on one example; with its gradient it counts as three.
"""

SCALING, PRECISION, OWEN, POINTS = "Scaling", "bfloat16 and compilers", "The whole network's game", "All points"
PUBLISHED, REFIT = "Published estimators and cheap scores", "The game after a refit"
RACES, EQUAL = "To the error of the authors' five orders", "Error at equal evaluations, as a part of plain orders'"
THROUGHPUT, PASSES = "Throughput", "One-pass criteria, all layers, in forward and backward passes"
INTRODUCTIONS = {
    RACES: """
The table compares the time that the authors' algorithm takes for five orders with the time that the default sampler
takes for an error that is no larger. The error of five orders is a fifth of the mean error of one.
""",
    EQUAL: """
Each value is the error of an estimator divided by that of `permutation` at the same number of evaluations: the
geometric mean over groups.
""",
    THROUGHPUT: """
*Throughput* is the time of one image through the operators behind the group alone (the bare suffix), divided by the
time of one coalition. Times are in microseconds (us) of the processor. Behind the last group there is little more than
one product, so that the time of its coalitions is determined by the number of calls of torch for each tile of 256:
those of the loss, the checks of labels and outputs, and one product for each example. Measured in turn, the code of
version 0.11.0 took 4.6 us there, and 2.7 us for the suffix.
""",
    PASSES: """
Each value is the time of a criterion for all groups, as a multiple of the time of one forward and backward pass.
""",
}
"""The text before the table of each section."""

PUBLISHED_TEXT = """
    python -m benchmarks shapley.published --networks vgg demo
    python -m benchmarks shapley.published --networks ResNet-20 ResNet-56 --data DIR
    python -m benchmarks shapley.sections

This section compares estimators of two papers, and cheap scores as control variates, with ours at the same number of
evaluations for each unit. Each cell is the error divided by that of `permutation` (the geometric mean over the groups
that were measured), and in brackets the rank correlation with the true values. A lower error with a lower correlation
is a shrunken estimate, not a better ranking. The CIFAR ResNets have 256 labelled test images. The rows name version,
machine and groups.

- *leverage, one regression*: the regression of `leverage` over all pairs, each on an example of its own, where
  `leverage` takes the mean over blocks. With pairs of a coalition and its complement, it is PolySHAP of degree 2
  (Fumagalli, Witter, Musco 2026): terms of two players change no value. A test repeats the theorem.
- *PolySHAP, degree 3*: the same paper with all triples. There are more triples than evaluations. The paper uses a
  selection of them. Here all are used with a ridge, which is chosen by leave-one-out errors (ours).
- *adjusted*: regression-adjusted Monte Carlo (Witter, Liu, Musco 2025) with ten folds, by a linear surrogate and by
  boosted trees, whose errors the paper gives as up to 6.5 times lower than those of orders.
- *antithetic, Taylor* and *slopes at nobody*: gradients where all units are present, or none, as control variates. An
  additive score changes every marginal by the score itself, so it does not change an estimate along orders. A game of
  pairs, such as that of `obs`, does not change an estimate along an order with its reverse. Only the difference between
  the examples of a block and all examples has an effect. In a trial with 16 examples and six orders with their reverses
  in five groups (not among the rows), gradients with all units present explained 4 to 19 % of the variance of the
  values over examples. With none present they explained 26 to 83 %, for a backward pass of each group on all examples.
  Both count as evaluations.

**None of these estimators is used.** Regression adjustment with a linear surrogate hardly changed the error of the
regression. With trees, it increased the error in most groups, and where it decreased the error, plain orders were still
better. PolySHAP of degree 3 had a lower error than orders in three networks because of its ridge, but no better
ranking, and never a lower error than `controlled` in groups of 64 units or more. Cheap scores gained less than they
cost. Values of these games differ more between examples than between coalitions of one example, and a surrogate of
coalitions cannot explain that. The papers' games have one value for each coalition. `controlled` uses many examples in
each block, and each gradient gives estimates for all units at once. A constant for each unit subtracted from its
gradients changed the variance of 12 blocks by -15 to +23 % in the 13 groups, and by about 0 in the mean (a trial, not
among the rows).

The measured groups are stem.0 and layer2.1.conv1 of the demo's network, features.17 of the VGG-like one, layer3.2.conv1
of ResNet-20 and layer3.8.conv1 of ResNet-56. Empty cells were not measured, and cells of the demo's network may stand
for one of its two groups.
"""

REFIT_TEXT = """
    python -m benchmarks shapley.refit_game --data DIR
    python -m benchmarks shapley.sections

This section compares rankings where the cut network is repaired by least squares. In this game (`ablation="impute"`) an
absent unit is predicted from the present ones, as after a refit. Each example has its own game; *mean* and *robust* are
the aggregates of the same orders. Every ranking removes the same fraction of each group, and `refit` repairs with 256
images without labels. The table has the points of accuracy lost on other images, the difference from `obs`, and the
cost in forward passes of the 256 images. A difference of more than 0 is worse; it has a 95 % interval over draws of the
images, or over networks in the rows *all*.

**`obs` is better.** In the mean over draws, both aggregates lose more than `obs` at both budgets in every network where
they were measured, for 9 to 71 times its cost. On ResNet-20 they are between `obs` and `random`, and elsewhere close to
`random`. More sampling does not help. The ranking of residual-0 took 512 evaluations for each unit (the others 64 or
128), and its errors are a seventh of the variance of its scores. Nevertheless the mean is worse than `random` at both
budgets. The Shapley value is a mean over coalitions of all sizes. After a cut, the loss depends on the part of the
removed units that the kept units cannot predict, which `obs` estimates. So `by="obs"` stays the default, and
`ablation="impute"` is for questions about the game itself. Draws and networks that the table does not have were not
measured, and intervals over two or three draws are wide; the commands above measure them.
"""

COMPILED = """
The whole network on 64 images with `torch.compile`. Scoring does not use it: the operators behind a group are a
different program for each group, and compiling one of them takes longer than scoring all groups.
"""
CURVES = "![error and rank correlation](shapley-curves.svg)"
LOW_PRECISION = '`precision="bfloat16"`, `controlled`, 64 evaluations for each unit:'
WHOLE_GAME = "Owen values of all units. Errors are estimated from the differences between four independent runs:"
