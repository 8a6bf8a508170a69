"""Whether two sets of tensors are the same, bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["tensor_fingerprint"]


def tensor_fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, types, shapes and bytes, as hex digits; the order does not matter, names occur once."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda named: named[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
