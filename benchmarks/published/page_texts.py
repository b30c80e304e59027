"""The texts of docs/published.md beside its tables."""

INTRODUCTION = """# Published networks

This page has networks that others trained, with real data and with other methods without training in the same run.
Every row of every table is the first measurement of the command; nothing was selected afterwards. Empty cells were not
measured.

    python -m benchmarks published --data DIR
    python -m benchmarks published --page

The first command measures, row by row, into `benchmarks/results/published/rows.jsonl`; its help says where the data
are from. The second writes this page from the rows.

- **Images** are drawn from the training set, without labels and without augmentation, anew for each draw. Clips of
  Speech Commands are from its test set; the networks are tested on other clips of it.
- **Test.** CIFAR-10 has every fifth of the 10,000 test images. The standard error of an accuracy of 90 % is .7 points;
  that of a difference between two methods is smaller, because they are tested on the same images. Speech Commands has
  496 clips of words (the standard error of 96 % is .9 points), and CamVid 78 images at 480 x 360.
- **Secateur** uses all images (`holdout=0`), because the networks are tested on other images. A budget is an upper
  limit. Where sizes that fill the kernels of the processor are chosen, fewer MACs may remain, and the cell has their
  fraction. Such sizes depend on the processor: rows since 0.16.0 are from a processor with AVX2 (steps of 8 channels),
  and older rows of the default from processors with AVX-512 (16). The command may choose other plans on another
  processor.
- **Seconds** are processor seconds of one thread for everything from the dense network to the small one. **Passes** are
  the same in forward passes of the dense network over the same images, timed in the same process.
- No method but two takes gradient steps through the network, and none has labels. `tune` takes up to 600, towards the
  features that the dense network's last layer reads ([repair.md](repair.md)). Distillation after torch-pruning takes
  300 of 64 images, flipped and shifted, towards the dense network's outputs at a temperature of 4 (Adam, one cycle up
  to 1e-3). torch-pruning's Taylor has the gradients of the cross-entropy with the classes that the dense network
  predicts.
"""

REASONS = """What is known of the reasons, from ResNet-20 with 256 images at half of its MACs (docs/design.md,
"Repairs are judged at a temperature", has the figures):

- The images do not show enough for unsuitable plans. At one plan, `adapt` leaves a divergence of .0036 on the 256
  fitted images and of .247 on test images; with 1,024 images in the repair it is .194. Since 0.19.0 the last steps of
  `adapt` use mirror images as well, which leaves .232 in this trial (docs/design.md, "Mirror images in the last steps
  of `adapt`"). Rows of older versions are without them.
- Plans have a larger effect. With the same repair, six plans for this budget are between .35 and .50 on test images.
  Until 0.12.0, plans were compared on the images of their quick refit. This favours plans that fit these images: the
  best of the six was the second in the simulation. Until 0.19.0, the mean of the divergences was compared, most of
  which was due to a few images. Since 0.20.0 it is the mean root (docs/design.md, "Plans are compared by the roots of
  their divergences"). At the plan of the third draw, 1,024 images in the repair leave the same divergence on test
  images as 256, .280.
- After blocks that keep a quarter of their channels or less, the error of the residual stream is .14 to .3 of its
  variance, on fitted images as well as on others. How far later layers can correct it is limited by the few hundred
  images.
- `tune` added half a point to the first draw of 0.13.0 (85.70 to 86.20 %), for 670 further passes, so it is not part of
  the default. In a trial with 64 other images held out, their divergence did not decrease further after 134 steps: it
  is limited by the images and the plan, not by the number of steps.
- The removal of whole blocks gains more than other sizes of layers. Until 0.14.0 the default lost two points because of
  sizes that fill the kernels' steps of 16 channels: 85.70 and 85.40 % in the first two draws, at 71 % of the MACs in
  steps, where `target="any"` had 87.70 and 87.30 % at 94 and 86 %. Since 0.15.0 it also removes one or two of the seven
  blocks, and keeps more channels in the others, at 58 to 61 % of the MACs in steps. The rows of `target="any"` are from
  the older versions.
- On the same processor and draws, the mean accuracy with 256 images at half of the MACs was 86.15 % in 0.18.1, 87.02 %
  with mirror images (0.19.0) and 87.90 % with plans compared by roots (0.20.0); at 35 % it was 80.15, 81.10 and
  81.38 %.
"""

SCALE = """## Published figures, for scale

These figures are reported by others, for networks that they trained and with their own examples. They show the size of
losses to expect, and cannot be compared directly. The other methods above ran on the same networks and images.

| work | network | removed | points of accuracy |
|---|---|---|--:|
| SVPR, no fine-tuning | ResNet-20 | 20, 39 and 49 % of the FLOPs | -2.5, -12.4, -24.9 |
| CHIP and TVSPrune, no fine-tuning | ResNet-56 | 12 % of the parameters | -10 |
| DepGraph and others, full retraining | ResNet-56 | half of the FLOPs | -.1 to +.2 |
| restoration without training | MobileNetV2, ImageNet | 10 % | 71.9 to 53.4 % |
"""

ALLOCATIONS = """## The default beside each single allocation

    python -m benchmarks published.allocations --data DIR
    python -m benchmarks published.allocations --table

A plan other than the simplest one may be chosen because of noise, most of all with few examples. A case is a network
with a draw of 32 or 64 examples without labels. In each case `obs` scores the units once. Then every allocation that
the default tries makes a plan of any sizes for the same MACs: 25 % of the demo network and of the separable one, 20 %
of the VGG-like one, 60 % of BC-ResNet-2, and 50 % of ResNet-20. The plan is cut, refitted, and compared with the dense
network on about 500 test examples. The excess of a divergence is that over the best single allocation of the case; its
mean is geometric. The last column counts the cases in which the default came at least as near to the dense network.
There are five networks, and no cases of 256 examples; what the default chooses for ResNet-20 and -56 with 256 is above.
"""

VERSIONS = """Versions 0.10.0 and 0.11.0 compared plans on the examples that they had been refitted on. Their mean
excess in these cases was 15.4 %, 188 % at most. The rows of 0.12.0 are from its source on the way to the next
version, which compares plans on the other half of the examples (docs/design.md, "Plans are judged by examples that
they were not refitted on").
"""
LEAN = """## LEAN on CamVid

    python -m benchmarks published.camvid_lean --data DIR

The experiment of LEAN's paper in small ([lean.md](lean.md)): ESPNet, its kernels removed by longest chains, and by two
criteria of single kernels. Without fine-tuning the kernels are removed at once; with it they are removed in four rounds
of 16 steps, one epoch of the 62 training images each, towards the dense network's outputs and without labels. The paper
has 15 rounds of three epochs each. MACs are those of the network after channels without kernels are cut, as a fraction
of the dense network's. Seconds are processor seconds of one thread, the test included.
"""
ALONE = """## Dense networks alone

The command has these networks, too. Their pruned forms were not measured yet, because each row takes a quarter of an
hour of one core or more.

"""
