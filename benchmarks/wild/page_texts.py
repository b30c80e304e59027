"""The texts of docs/coverage.md beside its tables."""

TITLE = """# Coverage

This page lists network definitions of public libraries, and what Secateur can trace, cut, save and export of each.
"""
ABOUT = """\
    python -m benchmarks coverage --data DIR

This command measures all rows and writes this page. `DIR` holds the CIFAR-10 ResNets; without `--data` their rows are
left out. `--help` lists the packages that the command needs. `python -m benchmarks coverage --page` writes the page
from the rows in `benchmarks/results/coverage`.

Networks have random weights and small configurations, except for those under `pretrained/`, which have their trained
weights. Networks under `transformers-defaults/` keep the flags of the default configuration, such as the cache of
decoders. Networks under `plain/` are written from the published architecture, because no library has them. Each
network runs in its own process with one thread of a CPU. Rows that record the machine name an AMD EPYC and torch
2.13.0.

- **export**, **batched**, **trace**: processor seconds. *export* is `torch.export.export` alone. *batched* is the
  same with a variable batch size, and a variable length of token sequences. *trace* is `sc.trace`, which makes the
  batched export, finds the groups, and makes trial cuts. The batched export is timed twice, and the shorter time is
  given; the plain export is timed after it. Decoders are exported without their caches, which torch cannot export.
  Cells are empty where torch cannot export the model, and for decoders in rows measured before caches were left out.
- **can be cut**: the share of the parameters of convolutions, linear, recurrent and attention layers of which a plan
  can remove a part.
- **left**: the parameters after a cut by random scores with a budget of 75 %.
- **differs**: the largest difference between the outputs of the cut network and of the masked run on new inputs,
  relative to the largest output.
- **loaded**: *yes* where the outputs are bit-equal after saving and loading onto a new model.
- **exports**: *yes* where torch exports the cut network in the same way as the dense one, decoders without their
  caches. A stage in bold is the one that failed. Cells are empty where the export was not tried.
- **unchanged**: *yes* where tracing, planning and cutting change nothing of the dense model. Compared are its
  parameters, buffers, attributes, modes, hooks and configuration, bit for bit and object for object, and also the
  example and the random generators of Python, numpy and torch. Cells are empty where this was not compared.
- **raw**: the stage that raised an exception other than a `SecateurError`, or *none*.
- **torch-pruning**: the outcome of version 1.6.1, which removes a quarter of every layer by random importance, with
  the output layer excluded by hand and a limit of 120 s. *works* means that the result is smaller and gives outputs
  of the same shape; torch-pruning has no masked run to compare with. *crash* is an exception, *hang* is the limit of
  120 s, and *untouched* means that nothing was removed. The numbers of attention heads (`num_heads=`) were not set by
  hand. Cells are empty where torch-pruning was not run.
"""
SLOW = """\
Tracing takes long for these reasons. A trial cut is repeated where the model's own code does not accept the cut shape
(EfficientViT, EdgeNeXt), and such a model may be exported once more with all lengths variable (EdgeNeXt, SegFormer). A
model whose code writes to parts of tensors is exported again after torch has decomposed these operators (Swin). A trial
cut runs the network, while an export computes no activations. Trial cuts therefore dominate where one forward pass
takes longer than an export. For example, a forward pass of S3D on two clips of 16 x 224 x 224 takes the time of 1.4
exports. Tracing runs three such passes of the dense network (one run of the model, and the masks of four trials on one
example each), and one of the cut networks."""
FROZEN = """\
Networks of which less than nine tenths of the layers' parameters can be cut are listed with the groups that are frozen
and the reasons; groups of the outputs are not listed. *As a program* is the share that can be cut with
`as_program=True`."""
