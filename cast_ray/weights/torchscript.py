"""Which tensors a TorchScript archive holds, read without loading its code: OpenAI publishes CLIP in this form.

An archive is a zip file with, under one folder: `data.pkl`, the module tree as a pickle whose classes are scripted ones
(`__torch__.*`); `data/0`, `data/1`, ..., the raw bytes of the tensors' storages; and `code/`, which is never looked at.
The pickle is read by an unpickler that knows a dozen names and answers each with something that can do nothing:
scripted objects become bags of attributes, tensors become descriptions, and those are checked before bytes are read.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cast_ray.errors import UserError

__all__ = ["is_torchscript", "read_torchscript"]

PICKLE_LIMIT = 4 * 2**20
"""Bytes; the module tree of the largest CLIP takes less than a sixth of it."""

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
MALFORMED = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, ValueError, TypeError, KeyError, IndexError),
    *(AttributeError, RuntimeError, MemoryError, OverflowError, NotImplementedError),
)
"""What reading a damaged archive can raise."""


def is_torchscript(path: Path) -> bool:
    """Whether the file is a zip archive as `torch.jit.save` writes it."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except MALFORMED:
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of a scripted module by name, on the CPU, in the file's own precision.

    Raises:
        UserError: the archive is damaged, or asks for anything that weights do not need.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = _Records(archive, path.stat().st_size)
            content = records.read("data.pkl", limit=PICKLE_LIMIT)
            _check_memo(content)
            tree = _Unpickler(io.BytesIO(content)).load()
            return {name: records.tensor(spec) for name, spec in _tensors(tree)}
    except _RefusedError as error:
        raise UserError(
            f"checkpoint {path} is refused: its pickle asks for '{error}', which no archive of weights needs; "
            "do not use this file, and tell where it comes from"
        ) from error
    except MALFORMED as error:
        raise UserError(
            f"checkpoint {path} is a TorchScript archive that cannot be read ({error}); fetch it again, or convert it "
            f"once where you trust it: torch.save(torch.jit.load('{path.name}', map_location='cpu').state_dict(), "
            "'converted.pt')"
        ) from error


def _check_memo(content: bytes) -> None:
    """Raise ValueError for a memo index beyond the pickle's length: memory is taken for all indices below it."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name.endswith("PUT") and isinstance(argument, int) and not 0 <= argument <= len(content):
            raise ValueError(f"its pickle has the memo index {argument}")


class _RefusedError(Exception):
    """The pickle asks for something that could act."""


class _Object:
    """A scripted object: its attributes, nothing else."""

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _TensorSpec(NamedTuple):
    """A tensor that is not read yet; every field is as the file has it."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


class _DescribeTensor:
    """Stands for `torch._utils._rebuild_tensor_v2`. An object without attributes, so that a pickle cannot alter it."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _TensorSpec:
        return _TensorSpec(storage, offset, size, stride)


class _First:
    """Stands for the builders of typed lists, which return their argument."""

    __slots__ = ()

    def __call__(self, value: Any, *_: Any) -> Any:
        return value


class _Nothing:
    """Stands for OrderedDict, which archives use only for hooks."""

    __slots__ = ()

    def __call__(self, *_: Any) -> None:
        return None


KNOWN = {
    ("torch._utils", "_rebuild_tensor_v2"): _DescribeTensor(),
    ("collections", "OrderedDict"): _Nothing(),
    **{
        ("torch.jit._pickle", name): _First()
        for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
    },
}


class _Unpickler(pickle.Unpickler):
    """Unpickler whose only gate to the outside, `find_class`, answers with the stubs above."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            return _Object
        if module == "torch" and name in STORAGES:
            return name
        if (module, name) in KNOWN:
            return KNOWN[module, name]
        raise _RefusedError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        return pid


def _tensors(tree: Any) -> Iterator[tuple[str, _TensorSpec]]:
    """Tensors below a scripted object by dotted name; an object that is reachable twice counts once, as in PyTorch."""
    seen: set[int] = set()
    waiting = [("", tree)]
    while waiting:
        prefix, node = waiting.pop()
        if isinstance(node, _TensorSpec):
            yield prefix, node
        elif isinstance(node, _Object) and id(node) not in seen:
            seen.add(id(node))
            children = [
                (f"{prefix}.{name}" if prefix else str(name), x) for name, x in getattr(node, "attributes", {}).items()
            ]
            waiting += reversed(children)


class _Records:
    """The records of one archive, checked against the size of the file before memory is taken for them."""

    def __init__(self, archive: zipfile.ZipFile, file_size: int) -> None:
        self.archive = archive
        self.file_size = file_size
        pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"it has {len(pickles)} records data.pkl instead of one")
        self.root = pickles[0].removesuffix("data.pkl")
        if f"{self.root}byteorder" in archive.namelist() and self.read("byteorder", limit=16) != b"little":
            raise ValueError("its numbers are not little-endian")

    def read(self, name: str, *, limit: int) -> bytes:
        info = self.archive.getinfo(self.root + name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > min(limit, self.file_size):
            raise ValueError(f"record {name} is compressed or larger than it can be")
        return self.archive.read(info)

    def tensor(self, spec: _TensorSpec) -> Tensor:
        dtype, key, elements = _check_storage(spec.storage)
        _check_layout(spec, elements)
        content = bytearray(self.read(f"data/{key}", limit=elements * dtype.itemsize))
        if len(content) != elements * dtype.itemsize:
            raise ValueError(f"record data/{key} has {len(content)} bytes instead of {elements * dtype.itemsize}")
        if not content:
            return torch.empty(spec.size, dtype=dtype)
        # A copy, so that a tensor that is a small part of a storage does not keep all of it.
        view = torch.frombuffer(content, dtype=dtype).as_strided(spec.size, spec.stride, spec.offset)
        return view.clone(memory_format=torch.contiguous_format)


def _check_storage(storage: Any) -> tuple[torch.dtype, str, int]:
    kind, storage_type, key, _, elements = storage
    if kind != "storage" or storage_type not in STORAGES or not _are_counts((elements,)):
        raise ValueError(f"{storage!r:.80} is no storage")
    if not isinstance(key, str) or not re.fullmatch(r"[0-9]{1,20}", key):
        raise ValueError(f"{key!r:.80} is no number of a storage")
    return STORAGES[storage_type], key, elements


def _check_layout(spec: _TensorSpec, elements: int) -> None:
    """Raise ValueError unless the tensor lies inside its storage and is no larger than it."""
    size, stride = spec.size, spec.stride
    if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= 8):
        raise ValueError("a tensor has no proper shape")
    if not _are_counts((spec.offset, *size, *stride)):
        raise ValueError("a tensor's shape does not consist of whole numbers")
    last = spec.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > elements or (math.prod(size) > 0 and last >= elements):
        raise ValueError(f"a tensor of shape {size} lies outside its storage of {elements} numbers")


def _are_counts(values: tuple[Any, ...]) -> bool:
    return all(type(value) is int and value >= 0 for value in values)
