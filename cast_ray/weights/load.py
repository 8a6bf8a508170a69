"""How weights from files get into a network's experts, and how to tell later that they are the same ones."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cast_ray.errors import UserError
from cast_ray.models.network import Network
from cast_ray.weights.clip import from_clip
from cast_ray.weights.strict import load_strictly
from cast_ray.weights.videomae import from_videomae

__all__ = ["frozen_fingerprint", "load_experts", "read_checkpoint"]

Translation = Callable[[Mapping[str, Tensor]], tuple[dict[str, Tensor], list[str]]]

WRAPPERS = ("model", "module", "state_dict")
"""Keys under which training programs put the tensors, in order of preference."""


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint file by name, on the CPU. Nothing in the file is ever executed.

    Reads safetensors and files of `torch.save`: either the tensors themselves or a dictionary that holds them under
    'model', 'module' or 'state_dict'. A prefix 'module.' of data-parallel training is removed.

    Raises:
        UserError: no such file, or it is no such checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist or is not a file; check the path")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise UserError(f"checkpoint {path} is not a valid safetensors file ({error}); fetch it again") from error
    content = _unpickle(path)
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(x, Tensor) for x in content.values()):
        raise UserError(
            f"checkpoint {path} holds no dictionary of tensors, neither directly nor under one of {list(WRAPPERS)}; "
            "save the model's state_dict() and give that file"
        )
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _unpickle(path: Path) -> Any:
    if _is_torchscript(path):
        raise UserError(
            f"checkpoint {path} is a TorchScript archive, which holds code; convert it once where you trust it: "
            f"torch.save(torch.jit.load('{path.name}', map_location='cpu').state_dict(), 'converted.pt')"
        )
    try:
        # Published VideoMAE files keep the command line as a Namespace, which is plain data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"checkpoint {path} is refused, because it holds more than tensors and plain data or is no checkpoint "
            f"({reason}); convert it to safetensors where you trust it"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"checkpoint {path} cannot be read ({error}); fetch it again") from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def load_experts(network: Network, *, spatial: str | Path | None = None, temporal: str | Path | None = None) -> None:
    """Fill the experts of a network from foreign checkpoints; adapters, exchanges and head stay as they are.

    Args:
        network: a network with experts 'spatial' (CLIP family) and 'temporal' (VideoMAE family).
        spatial: CLIP checkpoint of OpenAI or open_clip, None to leave the expert as it is.
        temporal: VideoMAE checkpoint of its authors, None to leave the expert as it is.

    Raises:
        UserError: a file cannot be read, or its tensors are not exactly those of the expert.
    """
    sources: tuple[tuple[str, str | Path | None, Translation], ...] = (
        ("spatial", spatial, from_clip),
        ("temporal", temporal, from_videomae),
    )
    for name, path, translate in sources:
        if path is None:
            continue
        if name not in network.experts:
            raise UserError(f"{path} was given for the expert '{name}', but the model has {list(network.experts)}")
        expert = network.experts[name]
        tensors, unknown = translate(read_checkpoint(path))
        expected = {key for key, _ in expert.named_parameters() if "_adapter." not in key}
        load_strictly(expert, tensors, unknown=unknown, expected=expected, where=f"{path} for the {name} expert")


def frozen_fingerprint(network: Network) -> str:
    """SHA-256 over names, types, shapes and bytes of the parameters that do not train, as hex digits.

    A checkpoint stores it instead of the frozen weights; equal fingerprints mean bitwise equal weights.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(network.named_parameters()):
        if not parameter.requires_grad:
            digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
            digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
