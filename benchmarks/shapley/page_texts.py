"""The texts of docs/shapley.md beside its tables."""

ABOUT = """# Shapley values: error, speed, scaling

One run on one thread produced this page:

    python -m benchmarks shapley

Some sections come from further runs. The section on scaling was measured again by itself, with `--scaling`, after a
fault in the memory of the errors was corrected. The sections on bfloat16 and compilers and on the whole network's game
come from `--precision` and `--owen`. The curves are drawn from the table at the end, also by `--curves`.

There are two networks: a VGG-like one (`benchmarks/networks/vgg.py`, 92.8 % on Fashion-MNIST) and the residual network
of the demo. The data are 256 (or 1,000) labelled test images. The loss is the cross entropy, the ablation is by zero,
and the aggregate is the mean over examples. *Error* is the squared error divided by the sum of squares of the true
values. The truth is a long run, which was checked against a long run of another estimator (`benchmarks/shapley/truth`).
An *evaluation* is one coalition on one example; with its gradient it counts as three.
"""

SCALING, PRECISION, OWEN, POINTS = "Scaling", "bfloat16 and compilers", "The whole network's game", "All points"
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
time of one coalition. Times are in microseconds (us).
""",
    PASSES: """
Each value is the time of a criterion for all groups, as a multiple of the time of one forward and backward pass.
""",
}
"""The text before the table of each section."""

COMPILED = """
The whole network on 64 images with `torch.compile`. Scoring does not use it: the operators behind a group are a
different program for each group, and compiling one of them takes longer than scoring all groups.
"""
CURVES = "![error and rank correlation](shapley-curves.svg)"
LOW_PRECISION = '`precision="bfloat16"`, `controlled`, 64 evaluations for each unit:'
WHOLE_GAME = "Owen values of all units. Errors are estimated from the differences between four independent runs:"
