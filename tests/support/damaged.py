"""Files of every kind that Secateur reads, damaged by chance or crafted with a digest that is right."""

import copy
import hashlib
import json
import lzma
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import secateur as sc
from secateur.data.conversion import as_batches
from secateur.errors import DataError, StorageError
from secateur.report.saved_report import saved_report
from secateur.sparsity import load_fast
from secateur.sparsity.pivoting.pivot import pivot
from secateur.sparsity.pivoting.result import load_pivoted
from secateur.sparsity.unification.codec import load_compressed, save_compressed
from secateur.training.loop import TrainingLoop, TrainingSettings

MENU: tuple[Any, ...] = (None, True, -1, 0, 1, 7, 2**40, 10**30, 1.5, 1e308, "x", "", [], [[[]]], {}, {"x": 1})
WRONG: tuple[Any, ...] = (None, -1, 1.5, 10**30, [], {}, {"x": [1]})
MAGIC = b"secateur blocks 1\n"
NESTED = "[" * 100_000


@dataclass(frozen=True)
class Subject:
    """A file of one kind, and what is made of it.

    Args:
        kind: of file.
        path: the file.
        use: gives what reads the file and returns what comes of it, and the model that it changes.
        crafted: further contents with a digest that is right, by name.
    """

    kind: str
    path: Path
    use: Callable[[], tuple[Callable[[], Any], nn.Module | None]]
    crafted: Callable[[bytes], Iterator[tuple[str, bytes]]]

    def variants(self, chance: int, crafted: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
        """So many contents damaged by chance, and at most so many crafted ones."""
        draws = random.Random(f"{self.kind} {seed}")
        whole = self.path.read_bytes()
        for number in range(chance):
            yield f"chance {number}", by_chance(whole, draws)
        contents = list(self.crafted(whole))
        yield from draws.sample(contents, min(crafted, len(contents)))


def by_chance(whole: bytes, draws: random.Random) -> bytes:
    """A bit, a byte or a piece of the content changed, cut off, doubled or put elsewhere."""
    at, other = sorted(draws.randrange(len(whole)) for _ in range(2))
    content = bytearray(whole)
    how = draws.randrange(6)
    if how <= 1:
        content[at] ^= 1 << draws.randrange(8)
    elif how == 2:
        content[at] = draws.randrange(256)
    elif how == 3:
        del content[at:]
    elif how == 4:
        content[at:at] = draws.randbytes(draws.randrange(1, 9))
    else:
        content[at : other + 1] = content[at : other + 1][::-1]
    return bytes(content)


def make() -> nn.Module:
    """A tiny network, always the same."""
    generator = torch.Generator().manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    for parameter in layers.parameters():
        parameter.data.normal_(generator=generator)
    return layers.eval()


def examples() -> Tensor:
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


def subjects(folder: Path) -> list[Subject]:
    """A file of every kind, written to a folder."""
    dense, x = make(), examples()
    network = sc.trace(dense, x[:2])
    subjects_of_results = _results(folder, x)

    sc.score(network, x, coalitions=12, progress=False, checkpoint=folder / "checkpoint").save(folder / "scores")

    def resumed() -> Any:
        return _plain(sc.score(network, x, coalitions=12, progress=False, checkpoint=folder / "checkpoint"))

    subjects_of_results.append(
        Subject("scores", folder / "scores", lambda: (_scores_in(folder / "scores"), None), tensors)
    )
    subjects_of_results.append(Subject("checkpoint", folder / "checkpoint", lambda: (resumed, None), tensors))
    save_compressed(dense, folder / "blocks", {"2.weight": (1, 2)})

    def compressed() -> tuple[Callable[[], Any], nn.Module]:
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
        return lambda: _state(load_compressed(model, folder / "blocks")), model

    subjects_of_results.append(Subject("blocks", folder / "blocks", compressed, blocks))

    def trained(steps: int = 3) -> tuple[Callable[[], Any], nn.Module]:
        model = make()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        loop = TrainingLoop(
            model, dense, as_batches(x), optimizer, TrainingSettings(batch_size=8, folder=folder / "states")
        )
        return lambda: (loop.run("stage", steps), _state(model))[1], model

    (folder / "states").mkdir()
    trained(2)[0]()
    (state,) = (folder / "states").iterdir()
    subjects_of_results.append(
        Subject("training", state, trained, tensors if state.suffix == ".safetensors" else lambda _: iter(()))
    )
    return subjects_of_results


def _results(folder: Path, x: Tensor) -> list[Subject]:
    """Saved results: a model, a program, and blocks by pivoting."""
    for name, as_program in (("plain", False), ("program", True)):
        result = sc.prune(make(), x, {"units": 0.6}, by="l2", repair=None, progress=False, as_program=as_program)
        result.save(folder / name)
    (folder / "plain" / "report.txt").write_text(f"{result.report}\n")
    pivot(make(), x[:2], 0.5, shape=(2, 2)).save(folder / "pivoted")

    def loaded(name: str) -> Callable[[], tuple[Callable[[], Any], nn.Module]]:
        def use() -> tuple[Callable[[], Any], nn.Module]:
            model = make()
            return lambda: _state(sc.load(model, folder / name)), model

        return use

    def of_blocks() -> tuple[Callable[[], Any], nn.Module]:
        model = make()

        def read() -> Any:
            pivoted = load_pivoted(model, folder / "pivoted", x[:2])
            layers = {name: (layer.blocks, layer.gather, layer.retained) for name, layer in pivoted.layers.items()}
            return _state(pivoted.model), layers, pivoted.shape, pivoted.density

        return read, model

    def of_kernels() -> tuple[Callable[[], Any], nn.Module]:
        model = make()
        return lambda: _state(load_fast(model, folder / "pivoted")), model

    report = folder / "plain"
    return [
        Subject("recipe", folder / "plain" / "recipe.json", loaded("plain"), records),
        Subject("weights", folder / "plain" / "weights.safetensors", loaded("plain"), tensors),
        Subject("program", folder / "program" / "recipe.json", loaded("program"), records),
        Subject("pivot", folder / "pivoted" / "pivot.json", of_blocks, records),
        Subject("kernels", folder / "pivoted" / "kernels.json", of_kernels, records),
        Subject("report", report / "report.json", lambda: (lambda: saved_report(report, False), None), records),
    ]


def _scores_in(path: Path) -> Callable[[], Any]:
    return lambda: _plain(sc.Scores.load(path))


def _state(model: nn.Module) -> Any:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, repr(model)


def _plain(scores: sc.Scores) -> Any:
    return {name: (group.values, group.errors, group.per_example) for name, group in scores.items()}, dict(scores.means)


def alike(one: Any, other: Any) -> bool:
    """Return True if two results are the same, bit for bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        is_like = one.shape == other.shape and one.dtype == other.dtype
        return is_like and torch.equal(one.nan_to_num(9e9), other.nan_to_num(9e9))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)


def snapshot(model: nn.Module) -> Any:
    flags = [(module.training, sorted(vars(module)), type(module)) for module in model.modules()]
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, repr(model), flags


def outcome(subject: Subject, content: bytes, expected: Any) -> str:
    """same, refused, or what is wrong."""
    subject.path.write_bytes(content)
    use, model = subject.use()
    before, random_state = None if model is None else snapshot(model), torch.random.get_rng_state()
    try:
        result = "same" if alike(use(), expected) else "silently another"
    except (StorageError, DataError):  # of data, where a checkpoint is one of other scores
        result = "refused" if model is None or alike(before, snapshot(model)) else "refused, and the model is changed"
    except Exception as failure:  # noqa: BLE001 (it is what is asked about)
        changed = model is not None and not _is_as(before, model)
        result = f"raw, and the model is changed: {failure}" if changed else f"raw {type(failure).__name__}: {failure}"
    return result if torch.equal(random_state, torch.random.get_rng_state()) else f"{result}, random state changed"


def _is_as(before: Any, model: nn.Module) -> bool:
    try:
        return alike(before, snapshot(model))
    except Exception:  # noqa: BLE001 (a module that is half changed may not even be shown)
        return False


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a tree of JSON; of long lists the first and the last alone."""
    if path:
        yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    entries = list(items)
    for key, value in entries if isinstance(tree, dict) else [*entries[:1], *entries[1:][-1:]]:
        yield from leaves(value, (*path, key))


def mutated(tree: Any, menu: tuple[Any, ...], strings: tuple[Any, ...] = WRONG) -> Iterator[tuple[str, Any]]:
    """Trees with one value replaced, left out, or joined by another.

    Args:
        tree: of JSON.
        menu: what stands in the place of values.
        strings: what stands in the place of strings, of which any other is as good.
    """
    for path in leaves(tree):
        *holders, key = path
        old = _at(tree, path)
        for value in strings if isinstance(old, str) else menu:
            if type(value) is not type(old) or value != old:
                changed = copy.deepcopy(tree)
                _at(changed, holders)[key] = value
                yield f"{path} = {value!r}", changed
        changed = copy.deepcopy(tree)
        del _at(changed, holders)[key]
        yield f"{path} left out", changed
        if isinstance(old, dict):
            for name in ("zz", "__dict__", "_parameters", "forward", "training", "1"):
                changed = copy.deepcopy(tree)
                _at(changed, path)[name] = copy.deepcopy(next(iter(old.values()), 3))
                yield f"{path} gets {name}", changed
        if isinstance(old, list) and old:
            changed = copy.deepcopy(tree)
            _at(changed, path).append(old[-1])
            yield f"{path} is longer", changed


def _at(tree: Any, path: Any) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def signed(content: Mapping[str, Any]) -> bytes:
    """JSON with the digest that a record has."""
    if not str(content.get("format", "/")).count("/"):  # as version 0.7 wrote it
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return json.dumps({**content, **({} if "secateur report" in str(content) else {"checksum": digest})}).encode()
    body = json.dumps(content, indent=1).rstrip()[:-1].rstrip().encode()
    return body + f',\n "checksum": "{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def records(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """Crafted JSON."""
    content = json.loads(whole)
    content.pop("checksum", None)
    for name, changed in mutated(content, MENU):
        yield name, signed(changed)
    yield "deep nesting", NESTED.encode()
    yield "deep nesting in a field", signed({**content, "zz": 0}).replace(b'"zz": 0', f'"zz": {NESTED}'.encode())


def tensors(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """Crafted files of tensors: what is said of them, their types, shapes and numbers."""
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    data = whole[8 + length :]
    metadata = header.pop("__metadata__")
    tensors_by_name = {name: _tensor(entry, data) for name, entry in header.items()}
    about = json.loads(metadata["about"])
    for name, changed in mutated(about, WRONG):
        if name != "('seed',) = -1":  # as good as any
            yield f"about{name}", packed(tensors_by_name, {**metadata, "about": json.dumps(changed)})
    yield "about is nested", packed(tensors_by_name, {**metadata, "about": NESTED})
    for key in metadata:
        yield (
            f"no {key}",
            packed(tensors_by_name, {name: value for name, value in metadata.items() if name != key}, sign=False),
        )
    for name, tensor in tensors_by_name.items():
        yield (
            f"{name} left out",
            packed({key: value for key, value in tensors_by_name.items() if key != name}, metadata),
        )
        yield f"{name} twice", packed({**tensors_by_name, f"{name}x": tensor}, metadata)
        yield f"{name} flat", packed({**tensors_by_name, name: tensor.flatten()[:-1]}, metadata)
        yield f"{name} deep", packed({**tensors_by_name, name: tensor[None]}, metadata)
        yield f"{name} empty", packed({**tensors_by_name, name: tensor.flatten()[:0]}, metadata)
        other = torch.int32 if tensor.is_floating_point() else torch.float32
        yield f"{name} of another type", packed({**tensors_by_name, name: tensor.to(other)}, metadata)
        for value in UNFIT if tensor.is_floating_point() and not name.startswith("noises") else ():
            filled = tensor.clone()
            filled.view(-1)[:1] = value
            if metadata["format"].startswith(("secateur scores", "secateur training")):
                yield f"{name} has {value}", packed({**tensors_by_name, name: filled}, metadata)
        if tensor.dtype == torch.int64:
            for value in (-1, 2**40, 2**62):
                filled = tensor.clone()
                filled.view(-1)[:1] = value
                yield f"{name} has {value}", packed({**tensors_by_name, name: filled}, metadata)


UNFIT = (float("inf"),)
TYPES = {"F64": torch.float64, "F32": torch.float32, "I64": torch.int64, "U8": torch.uint8, "BOOL": torch.bool}
CODES = {**{kind: code for code, kind in TYPES.items()}, torch.int32: "I32"}


def _tensor(entry: Mapping[str, Any], data: bytes) -> Tensor:
    content, kind = data[slice(*entry["data_offsets"])], TYPES[entry["dtype"]]
    flat = torch.frombuffer(bytearray(content), dtype=kind) if content else torch.zeros(0, dtype=kind)
    return flat.reshape(entry["shape"])


def packed(tensors_by_name: Mapping[str, Tensor], metadata: Mapping[str, str], sign: bool = True) -> bytes:
    """A file of tensors, with its digest."""
    if sign and "digest" in metadata:
        from secateur.files import digest_of  # noqa: PLC0415 (version 0.7 has none)

        signed = {name: metadata[name] for name in ("format", "about")}
        metadata = {**metadata, "digest": digest_of(tensors_by_name, signed)}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    data = b""
    for name, tensor in tensors_by_name.items():
        content = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def blocks(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """Crafted compressed networks: the header, and streams that swell."""
    at = len(MAGIC) + 8
    length = int.from_bytes(whole[len(MAGIC) : at], "little")
    header, rest = json.loads(lzma.decompress(whole[at : at + length])), whole[at + length : -32]

    def sealed(packed_header: bytes, streams: bytes) -> bytes:
        body = MAGIC + len(packed_header).to_bytes(8, "little") + packed_header + streams
        return body + hashlib.sha256(body).digest()

    for name, changed in mutated(header, MENU, (*WRONG, "nn", "float16", "x")):
        yield name, sealed(lzma.compress(json.dumps(changed).encode(), preset=0), rest)
    swollen = lzma.compress(bytes(64 << 20), preset=0)
    yield "a header that swells", sealed(lzma.compress(bytes(128 << 20), preset=0), rest)
    yield "a header that is no LZMA", sealed(b"x" * 40, rest)
    yield "deep nesting", sealed(lzma.compress(NESTED.encode()), rest)
    swelling = {**header, "streams": [[name, "lzma", len(swollen)] for name, _, _ in header["streams"]]}
    packed_header = lzma.compress(json.dumps(swelling).encode())
    yield "streams that swell", sealed(packed_header, swollen * len(header["streams"]))
    yield "a header longer than the file", MAGIC + (2**62).to_bytes(8, "little") + rest
    yield "more than there is", sealed(lzma.compress(json.dumps(header).encode()), rest + b"x")
