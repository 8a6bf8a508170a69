"""Which activation the file of a CLIP was trained with, as far as what lies beside it tells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cast_ray.errors import UserError
from cast_ray.weights.hub import SOURCE_FILE

__all__ = ["recorded_activation"]

ACTIVATIONS = ("quick_gelu", "gelu")
TIMM_CLIP, TIMM_QUICK = "_clip_", "_clip_quickgelu_"
"""In timm's names of architectures."""


def recorded_activation(path: Path, settings: Mapping[str, Any]) -> str | None:
    """'quick_gelu' or 'gelu' where source.json or a config.json beside the weights says it; else None.

    Args:
        path: file or folder of the weights.
        settings: the config.json beside them, of Hugging Face's transformers or of timm.

    Raises:
        UserError: it is another activation.
    """
    vision = settings.get("vision_config")
    vision = vision if isinstance(vision, dict) else settings
    for value in (_of_source(path), vision.get("hidden_act"), _of_timm(settings)):
        if value is not None and value not in ACTIVATIONS:
            raise UserError(
                f"{path} was trained with the activation {value}; CLIP experts have one of {list(ACTIVATIONS)}, give "
                "other weights (`cast-ray weights list`)"
            )
        if value is not None:
            return str(value)
    return None


def _of_source(path: Path) -> Any:
    try:
        recorded = json.loads(((path if path.is_dir() else path.parent) / SOURCE_FILE).read_text())
    except (OSError, ValueError):
        return None
    return recorded.get("activation") if isinstance(recorded, dict) else None


def _of_timm(settings: Mapping[str, Any]) -> str | None:
    architecture = settings.get("architecture")
    if not isinstance(architecture, str) or TIMM_CLIP not in architecture:
        return None
    quick = TIMM_QUICK in architecture or _is_quick(architecture, settings.get("pretrained_cfg"))
    return "quick_gelu" if quick else "gelu"


def _is_quick(architecture: str, pretrained: Any) -> bool:
    """Whether timm's table has QuickGELU for the very weights, as for OpenAI's under the architecture without it."""
    import timm

    tag = pretrained.get("tag") if isinstance(pretrained, dict) else None
    try:
        known = timm.get_pretrained_cfg(f"{architecture}.{tag}")
    except RuntimeError:  # no such tag
        return False
    return any("natively QuickGELU" in note for note in (known and known.notes) or ())
