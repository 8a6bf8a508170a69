"""Which tensors a checkpoint file or folder holds: read by name on the CPU, and nothing in it is ever executed."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cast_ray.errors import UserError
from cast_ray.weights.torchscript import is_torchscript, read_torchscript

__all__ = [
    "INDEX",
    "SETTINGS_FILE",
    "WEIGHT_FILES",
    "WEIGHT_SUFFIXES",
    "choose_files",
    "index_parts",
    "read_checkpoint",
    "read_settings",
]

WRAPPERS = ("model", "module", "state_dict")
"""Keys under which training programs put the tensors, in order of preference."""
PREFIXES = ("module.", "_orig_mod.")
"""What data-parallel training and `torch.compile` put before every name."""

SAFETENSORS, NPZ = ".safetensors", ".npz"
WEIGHT_SUFFIXES = (SAFETENSORS, ".pt", ".pth", ".bin", ".ckpt", NPZ)
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "weights.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
"""Names of weights inside a folder or a repository, the formats without pickle first."""
INDEX = ".index.json"
SETTINGS_FILE = "config.json"

LFS_POINTER = b"version https://git-lfs"
"""How the small text file starts that git leaves in the place of a large one."""
TORCH_STARTS = (b"PK", b"\x80")
"""First bytes of what `torch.save` writes: a zip archive, or in old versions a pickle."""


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint by name, on the CPU. Nothing in the file is ever executed.

    Reads safetensors; files of `torch.save` that hold the tensors themselves or a dictionary with them under 'model',
    'module' or 'state_dict'; TorchScript archives (OpenAI's CLIP); NumPy's .npz; and folders in the manner of Hugging
    Face with one of these, also in several parts. Prefixes of data-parallel training are removed.

    Raises:
        UserError: no such file, or it is no such checkpoint.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        files = choose_files(path)
        return {name: tensor for file in files for name, tensor in read_checkpoint(file).items()}
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; check the path")
    start = _start(path)
    if start == LFS_POINTER:
        raise UserError(f"{path} is not a checkpoint (git-lfs pointer: run `git lfs pull` where it was cloned)")
    if path.suffix == SAFETENSORS:
        tensors = _read_safetensors(path)
    elif path.suffix == NPZ:
        tensors = _read_npz(path)
    elif is_torchscript(path):
        tensors = read_torchscript(path)
    elif not start.startswith(TORCH_STARTS):
        raise UserError(
            f"{path} is not a checkpoint, neither of torch.save nor of another known format; fetch it again"
        )
    else:
        tensors = _tensors_in(_unpickle(path), path)
    return _with_bare_names(tensors, path)


def read_settings(path: str | Path) -> dict[str, Any]:
    """The config.json beside a checkpoint (its folder, or the folder it lies in); empty if there is none."""
    path = Path(path).expanduser()
    file = (path if path.is_dir() else path.parent) / SETTINGS_FILE
    try:
        settings = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def choose_files(folder: Path) -> list[Path]:
    """The files of a folder that together hold its weights.

    Raises:
        UserError: there are none, it is not clear which, or a part is missing.
    """
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return _parts(folder / name) if name.endswith(INDEX) else [folder / name]
    others = sorted(file for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    if len(others) == 1:
        return others
    found = [file.name for file in others]
    raise UserError(
        f"folder {folder} has {f'several weights files {found}' if found else 'no weights file'} "
        f"and none of {list(WEIGHT_FILES)}; give the path of the file"
    )


def index_parts(index: Path) -> list[str]:
    """Names of the files that an index of weights in several parts names, all beside the index.

    Raises:
        UserError: it is no such index, or a name leads out of its folder.
    """
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is no index of weights ({error!r}); fetch it again") from error
    for name in names:
        # The index comes from elsewhere: it must not lead out of its folder.
        if not isinstance(name, str) or Path(name).name != name or Path(name).suffix not in WEIGHT_SUFFIXES:
            raise UserError(f"{index} names '{name}', which is no weights file beside it; fetch it again")
    return names


def _parts(index: Path) -> list[Path]:
    files = [index.parent / name for name in index_parts(index)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{index} names {missing}, which are missing; fetch all parts")
    return files


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(LFS_POINTER))
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read ({error})") from error


def _with_bare_names(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    twice = [name for name, count in Counter(map(_without_prefixes, tensors)).items() if count > 1]
    if twice:
        raise UserError(
            f"checkpoint {path} holds {len(twice)} tensors both with and without the prefixes {list(PREFIXES)}: "
            f"{twice[:3]}; remove those that are not used from the file"
        )
    return {_without_prefixes(name): tensor for name, tensor in tensors.items()}


def _without_prefixes(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"checkpoint {path} is not a valid safetensors file ({error}); fetch it again") from error


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays}
    except (ValueError, OSError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"checkpoint {path} is not a file of plain NumPy arrays ({error}); fetch it again") from error


def _tensors_in(content: Any, path: Path) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(x, Tensor) for x in content.values()):
        raise UserError(
            f"checkpoint {path} holds no dictionary of tensors, neither directly nor under one of {list(WRAPPERS)}"
            f"{_keys(content)}; save the model's state_dict() and give that file"
        )
    return {str(name): tensor for name, tensor in content.items()}


def _keys(content: Any, shown: int = 8) -> str:
    names: Sequence[str] = [str(name) for name in content] if isinstance(content, dict) else []
    return f", only {list(names[:shown])}{' ...' if len(names) > shown else ''}" if names else ""


def _unpickle(path: Path) -> Any:
    try:
        # Published VideoMAE and CAST files keep the command line as a Namespace, which is plain data. Mapped files
        # are read where needed: the optimizer's state, twice the size of the model, never leaves the disk.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # The rest of torch's message advises to run the code in the file.
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if "Unsupported operand" in str(error):
            raise UserError(f"{path} is not a checkpoint, or a damaged one; fetch it again") from error
        raise UserError(
            f"checkpoint {path} is refused, because it holds more than tensors and plain data"
            f"{f' ({asked[1]})' if asked else ''}; if you trust where it comes from, convert it there once: "
            f"from safetensors.torch import save_file; save_file(torch.load('{path.name}', map_location='cpu', "
            "weights_only=False)['model'], 'converted.safetensors')"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise UserError(f"checkpoint {path} cannot be read ({reason}); fetch it again") from error
