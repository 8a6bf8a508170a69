"""In what two networks differ that no resizing of tables makes up for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from cast_ray.models.spec import NetworkSpec

__all__ = ["differences"]

RESIZABLE = ("video.image_size", "video.num_frames", "audio.mel_bins", "audio.frames")
TRAINING_ONLY = ("drop_path_rate", "head.zero_classifier")
"""Without meaning once there are weights."""


def differences(saved: NetworkSpec, own: NetworkSpec, *, with_head: bool = True) -> list[str]:
    """Every part in which weights of `saved` mean something else in `own`, in words; without the head on request."""
    found = [
        (name, *values)
        for name, *values in _differences("", saved, own)
        if name not in (*RESIZABLE, *TRAINING_ONLY) and (with_head or not name.startswith("head."))
    ]
    return [f"{name} is {one} there and {other} here" for name, one, other in found]


def _differences(name: str, one: Any, other: Any) -> Iterator[tuple[str, str, str]]:
    """Name, and both values, of every part that differs."""
    if type(one) is not type(other):
        yield name, _short(one), _short(other)
        return
    parts, others = _parts(one), _parts(other)
    if parts and parts.keys() == others.keys():
        for key, part in parts.items():
            yield from _differences(f"{name}.{key}" if name else key, part, others[key])
    elif one != other:
        yield name, _short(one), _short(other)


def _parts(value: Any) -> dict[str, Any]:
    """What a value is compared by; nothing if it is compared as a whole."""
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple) and any(is_dataclass(part) for part in value):
        return {str(i): part for i, part in enumerate(value, start=1)}
    return {}


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(list(value))
    if isinstance(value, tuple) and any(is_dataclass(part) for part in value):
        return f"{len(value)} of them"
    return type(value).__name__ if is_dataclass(value) else repr(value)
