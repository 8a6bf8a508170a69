"""How an exported file is laid out: safetensors, with one entry of metadata that holds the contents as JSON.

The safetensors library wants all tensors as bytes in memory at once; here they are written one after the other, which
any storage takes and which can be watched. One entry, because the library keeps several in no order: the same
checkpoint makes the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cast_ray.data.storage import retried
from cast_ray.errors import UserError
from cast_ray.export.contents import Contents, from_json, to_json
from cast_ray.export.output import Sink
from cast_ray.weights.fingerprint import tensor_fingerprint

__all__ = ["DTYPES", "SUFFIX", "contents_at", "read_contents", "read_tensors", "write_file"]

SUFFIX = ".safetensors"
KEY = "cast_ray"
"""Name of the entry."""
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "float16": torch.float16}
"""By the words of the command line."""
CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""safetensors' names of types."""
ALIGNMENT = 8


def write_file(
    sink: Sink, contents: Contents, tensors: Mapping[str, Tensor], *, wrote: Callable[[int], None] = lambda _: None
) -> None:
    """Write a whole file.

    Args:
        sink: where to.
        contents: what it says of itself.
        tensors: by name, all of the same type.
        wrote: is told the number of bytes after each tensor.
    """
    header: dict[str, Any] = {"__metadata__": {KEY: to_json(contents)}}
    end = 0
    for name, tensor in sorted(tensors.items()):
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    sink.write(len(text).to_bytes(8, "little"))
    sink.write(text)
    for _, tensor in sorted(tensors.items()):
        sink.write(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        wrote(tensor.nbytes)


def read_contents(path: Path) -> Contents | None:
    """What a local file says of itself; None: it is no exported file. Errors as of `contents_at`."""
    return contents_at(pafs.LocalFileSystem(), str(path)) if path.suffix == SUFFIX and path.is_file() else None


def contents_at(storage: pafs.FileSystem, path: str) -> Contents | None:
    """What a .safetensors file on any storage says of itself; its tensors are not read. None: it is no exported file.

    Raises:
        UserError: it is damaged, cut off, or has another format version.
    """
    metadata = retried(lambda: _metadata(storage, path), what=path)
    return from_json(metadata[KEY], where=path) if KEY in metadata else None


def _metadata(storage: pafs.FileSystem, path: str) -> dict[str, str]:
    try:
        with storage.open_input_file(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if length > file.size() - 8:
                raise ValueError("its header is cut off")
            header = json.loads(file.read(length))
            metadata: dict[str, str] = header.pop("__metadata__", {})
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
            if 8 + length + end != file.size():
                raise ValueError(f"it has {file.size():,} bytes instead of {8 + length + end:,}")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"checkpoint {path} is not a valid safetensors file ({error}); fetch it again") from error
    return metadata


def read_tensors(path: Path, contents: Contents) -> dict[str, Tensor]:
    """All tensors of a file in float32, on the CPU.

    Raises:
        UserError: a byte of them is not as it was written.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"checkpoint {path} is not a valid safetensors file ({error}); fetch it again") from error
    found = tensor_fingerprint(tensors.items())
    if found != contents.fingerprints.tensors:
        raise UserError(
            f"{path} is damaged: its tensors have the fingerprint {found[:16]} instead of "
            f"{contents.fingerprints.tensors[:16]}; fetch it again"
        )
    return {name: tensor.float() for name, tensor in tensors.items()}
