"""The texts of docs/papers.md beside its tables."""

HEAD = """# Reproductions of the papers' experiments

This page repeats the experiments of the papers that the criteria come from. It is written by
`python -m benchmarks reproductions --page`. The rows mix versions. The line under each command names the version of
the source at which the rows were recorded.

Unless a section says otherwise, the networks are trained on Fashion-MNIST, where the authors used CIFAR-10 and other
data, and experiments run on one thread of a shared x86-64 machine without an accelerator. Published figures are given
beside the measured ones. They are of other networks and data, so only the order of criteria can be compared. Figures
are means and standard deviations over the seeds. Criteria that read the loss (all but weight norms, `apoz`, `fpgm`,
`lean`, `obs` and `random`) get the labels of their images, as in the papers. Times were not recorded. The rows that
name the processor, those on CIFAR-10, are from an AMD EPYC with torch 2.13.0. `--dataset cifar10 --data DIR --weights
FILE` runs `layerwise`, `lowdata` and `finetuning` on the original data. `DIR` holds the four files of Fashion-MNIST (of
MNIST for `untrained`).
"""
OPTIONS = {
    "layerwise": "--data DIR",
    "layerwise-cifar10": "--dataset cifar10 --data DIR --width 0.5 --epochs 16 --images 250 --seeds 0",
    "lowdata-cifar10": "--dataset cifar10 --data DIR --width 0.5 --epochs 16 --images 100 --seeds 0",
    "lowdata": "--data DIR",
    "untrained": "--data DIR",
    "finetuning": "--data DIR",
    "taylor2019": "--data DIR",
    "gates": "--data DIR --seeds 0",
    "circles-published": "--data DIR --device cuda",
}
VERSIONS = {  # of rows that do not record it
    "maximum": "0.8.0",
    "layerwise": "0.5.0, and 0.8.0 for the paper's protocol",
    "lowdata": "0.5.0",
    "untrained": "0.5.0",
    "finetuning": "0.5.0",
    "taylor2019": (
        "0.5.0, and 0.8.0 for `taylor-gates`, `taylor-gates-second`, `taylor-gates-examples` and `taylor-gates-norms` "
        "in the residual network"
    ),
    "gates": "0.8.0",
    "circles": "0.5.0",
    "circles-published": "0.8.0",
}
REMARKS: dict[str, list[str]] = {
    "lowdata": [
        "The paper's own protocol was not run here (`--criteria \"shapley, the paper's protocol\"` runs it).",
        "Without fine-tuning, `shapley` has the highest accuracies at 50 and 25 % kept, except for 500 images at",
        "25 %, and at 75 % one of the two Shapley criteria has, as published; the differences at 50 % are large.",
        "Mean ablation scores a unit by the loss where the unit is replaced by its mean, but a cut without repair",
        "does not replace it, and the accuracies at 50 % are low. With short fine-tuning the order differs from",
        "the published one: `taylor` is level with `shapley`, and above it for 100 images where half or less is",
        "kept. With 250 and more images, all criteria, `random` included, are within one to three points of each",
        "other.",
        "",
    ],
    "layerwise": [
        "Under zero ablation the order is the authors': Shapley values have the smallest areas, then Taylor, then",
        "weights and sensitivity, then APoZ. The distance of `random` is larger than in the paper.",
        "`integrated-gradients`, `leave-one-out` and the paper's protocol were measured on the first network",
        "(seed 0) alone, where `shapley, robust` has 0.468 under zero ablation, the paper's protocol 0.497, and",
        "`integrated-gradients` 0.476 with less computation. Areas under mean ablation are not smaller in",
        "general: they count all removals up to a layer with a constant output.",
        "",
    ],
    "layerwise-cifar10": [
        "The network is trained first: 16 epochs, an accuracy of 90.1 %. `DIR` holds folders of images, as in",
        "github.com/cyizhuo/CIFAR-10-dataset, or CIFAR-10 as its authors publish it. Scores are computed from 250",
        "training images, areas from 500 test images; one network, one draw of images. The order is the published",
        "one: Shapley values have by far the smallest areas, `robust` smaller ones than `mean`; APoZ and",
        "`taylor-signed` have the largest. `random` is level with `taylor` in the paper, and ahead of it here.",
        "`obs`, which is not in the paper, comes next to the Shapley values, although it assumes a refit that is",
        "not done here.",
        "",
    ],
    "finetuning": [
        "At 5 % kept, `random` is level with Shapley values after two epochs, as published. At 25 % kept, it is",
        "about one point lower after one epoch.",
        "",
    ],
    "taylor2019": [
        "Correlations are below the published .93. They are closest to it in the LeNet, which has no batch norms",
        "and a wide layer. The networks are small: a unit is a large part of its layer, and the effect of its",
        "removal is not linear. With the diagonal of the Hessian (`-second`), Pearson's correlation over all",
        "units is higher for the gates in all networks, and for the weights in the residual network and the",
        "LeNet. Under the schedule, `random` is level with the oracle or above it. It removes units of expensive",
        "layers as often as any others, reaches its budget in half of the steps, and recovers during the other",
        "half. The row `taylor, gates at norms` of the residual network is the schedule of version 0.8, with the",
        "mean of squares over the batch norms of a stage.",
        "",
    ],
    "gates": [
        "Over all units, one gate behind every block (`taylor-gates`) agrees better with the oracle than the mean",
        "of squares over the batch norms that write into a stage (`taylor-gates-norms`, as in version 0.8).",
        "Within stages the two are level in the residual network, and `taylor-gates-norms` agrees better in",
        "ResNet-20; both are available. In the residual network, one ranking of raw scores loses less accuracy",
        "than the other allocations up to 20 %. In ResNet-20, no allocation of `taylor-gates` keeps much accuracy",
        "at 20 % without tuning. Squares over minibatches are not the best of these criteria: the absolute values",
        "of 2017 for each example (`taylor`) have a higher Spearman correlation with the oracle in both networks.",
        "",
    ],
    "circles": [
        "At 11 % and 5 %, LEAN has no higher accuracy than the other methods, unlike in the paper. The networks",
        "are small and are fine-tuned for 400 steps of four images in all; the authors use 4,500 steps of five.",
        "In the authors' network (next section), LEAN chooses the same kernels as the norm until fine-tuning has",
        "increased the norms of most kernels above 1.",
        "",
    ],
    "circles-published": [
        "The accuracies after fine-tuning were measured on one NVIDIA H200 within 180 seconds; other work shared",
        "the card for the first 100 seconds. The last five steps of LEAN and the fine-tuning of `l1` and `norm`",
        "did not fit into the time. Masks and accuracies without tuning were computed on one thread of a CPU.",
        "Images are stored with 8 bits per pixel, which changes the dense network's accuracy by less than .0001.",
        "",
        "LEAN's accuracies are within .006 of the published ones at every step, and above them at four of ten",
        "steps. Nine of ten kernels of the published dense network have norms below 1, so that most kernels are",
        "first kept by their norm alone: in the first five steps, LEAN and the norm choose the same kernels. With",
        "every step fewer kernels carry the signal, and fine-tuning increases their norms. From 14 % on, all",
        "kernels that are kept come from chains. In these steps, LEAN and the norm differ in 7 to 22 % of the",
        "kernels, and LEAN has its advantage (published: .935 and .920 at 11 %, .903 and .772 at 5 %).",
        "",
    ],
}
