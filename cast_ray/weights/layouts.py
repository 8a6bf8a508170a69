"""Which layout a file has, and whether it suits an expert."""

from __future__ import annotations

from cast_ray.errors import UserError
from cast_ray.models.spec import ExpertSpec
from cast_ray.weights import cast_author
from cast_ray.weights.ast_author import AST_AUTHOR
from cast_ray.weights.clip import OPEN_CLIP
from cast_ray.weights.hugging_face import HF_AST, HF_CLIP, HF_VIDEOMAE, HF_VIT
from cast_ray.weights.jax_vit import JAX_VIT
from cast_ray.weights.layout import Layout, Tensors
from cast_ray.weights.timm_vit import DISTILLED, TIMM_ANY, TIMM_CLIP, TIMM_VIT
from cast_ray.weights.videomae import MVD, VIDEOMAE

__all__ = ["LAYOUTS", "OWN", "WHOLE", "choose_layout", "layouts_of", "whole_network_of"]

LAYOUTS: tuple[Layout, ...] = (
    *(OPEN_CLIP, HF_CLIP, TIMM_CLIP),
    *(HF_VIDEOMAE, MVD, VIDEOMAE),
    *(AST_AUTHOR, HF_AST, DISTILLED),
    *(JAX_VIT, HF_VIT, TIMM_VIT, TIMM_ANY),
)
"""Every layout of a single expert; the more special ones come first."""

OWN, WHOLE = "a whole network of this project", "CAST of its authors"


def layouts_of(tensors: Tensors) -> list[Layout]:
    """The layouts that a file may have; several only where different experts can be made of it."""
    return [layout for layout in LAYOUTS if layout.holds(tensors)]


def whole_network_of(tensors: Tensors) -> str | None:
    """What kind of whole network a file holds, None if none."""
    if any(name.startswith(("experts.", "exchanges.", "head.classify.")) for name in tensors):
        return OWN
    return WHOLE if cast_author.holds(tensors) else None


def choose_layout(tensors: Tensors, spec: ExpertSpec, *, where: str) -> Layout:
    """The layout by which a file fills an expert; `where` names both in errors.

    Raises:
        UserError: the file is unknown, or belongs to an expert of another family.
    """
    family = type(spec).__name__
    whole = whole_network_of(tensors)
    if whole is not None:
        raise UserError(
            f"{where} looks like {whole}, not like a single expert of the family {family}; load it as the whole network"
        )
    found = layouts_of(tensors)
    fitting = [layout for layout in found if isinstance(spec, layout.families)]
    if fitting:
        return fitting[0]
    if found:
        families = sorted({kind.__name__ for layout in found for kind in layout.families})
        raise UserError(
            f"{where} looks like {found[0].name}, which fills an expert of the family {' or '.join(families)}; this "
            f"expert is of the family {family}. Give weights of that family (`cast-ray weights list`), or choose "
            "another expert"
        )
    names = ", ".join(list(tensors)[:5])
    raise UserError(
        f"{where} has none of the known layouts: {'; '.join(sorted({layout.name for layout in LAYOUTS}))}. "
        f"It holds {len(tensors)} tensors: {names}{' ...' if len(tensors) > 5 else ''}. Convert it to one of them"
    )
