"""The texts of docs/lowdata.md beside its tables."""

ABOUT = """# Pruning with 256 unlabelled images

This page compares Secateur with torch-pruning at several budgets. The rows mix versions. Rows of Secateur are from
version 0.6.0, except that the rows `obs and shapley` and part of the latencies were added with version 0.7.0. Some
rows of torch-pruning are from earlier runs, which do not depend on Secateur. The default ridge of the refit changed
after these runs; with the newer ridge, the accuracy of the residual network (seed 0) changes by less than .1 point at
25 and 12 % of the MACs.

    python -m benchmarks lowdata --data DIR
    python -m benchmarks lowdata --page

The first command measures the rows of this page and needs torch-pruning. The second writes the page from them.
`DIR` holds the four files of Fashion-MNIST.

**Networks.** The three networks of `benchmarks/networks`, trained on Fashion-MNIST for four to twelve epochs.

**Data.** Each network is pruned with 256 images of the training set without their labels. The Taylor and Hessian
criteria of torch-pruning also receive the labels. Accuracy is measured on 10,000 other images. All runs use one
thread of an x86-64 CPU.

**Budgets.** Budgets are fractions of the dense network's MACs. The share that torch-pruning removes from each layer
is found by bisection.

**Methods of Secateur.** Units are ranked by the criterion `obs`. The allocation is the candidate whose outputs are
closest to the dense network's on a quarter of the images.

- *no repair*: the network as it is after the cut.
- *refit*: each layer is solved for in closed form.
- *refit, adapt*: the default of `prune`. After the refit, layers are optimised jointly with their consumers. The
  repair uses no labels, no augmentation, and no gradient of the whole network's loss.
- *refit, adapt, tune*: 300 further steps of distillation with flips and shifts. They are kept where they improve the
  result on held-out images.

**Methods of torch-pruning**, version 1.6.1.

- *no repair*: the network as it is after the cut.
- *batch norm*: the statistics of batch norm are estimated again on the same images.
- *300 steps*: the statistics are estimated again, then the same 300 steps of distillation follow, with batch norm in
  training mode, which gave the highest accuracy.
"""

ACCURACIES = """\
Test accuracy in %, the mean over seeds. The number of seeds is in brackets. Empty cells were not measured.
"""
DROPS = """\
Percentage points of test accuracy below the dense network: the mean over the three networks of the means over their
seeds, from the rows above.
"""
RANKED = """\
Test accuracy in %, seed 0, where every group loses the same share of its units. After the repair, `obs` has the highest
accuracy of the single criteria or is level with the highest, and its advantage is larger at smaller budgets. Without a
repair, `shapley` and `taylor` have higher accuracies than `obs` at 50 % of the MACs. `obs and shapley` ranks units by
the sum of their two ranks. After the repair, its accuracy lies between those of the two criteria, except that it is
higher at 12 % of the separable network and lower at 25 % of the VGG-like one.
"""
EXAMPLES = """\
Test accuracy in %, seed 0, of `obs` with *refit, adapt*, by the number of images used for pruning.
"""
LATENCY = """\
Time of the pruned network as a fraction of the dense network's, for one image and for 32, on one thread of a CPU whose
vectors hold 16 channels. The speed-up as a fraction of what the MACs allow is in brackets. Numbers of channels that do
not fill the CPU's vectors are slow; `round_to=16` avoids them. During the measurement, the only other work on the
machine was the same measurement of another network on the other core.
"""
