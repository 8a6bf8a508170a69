"""The papers' ablation tables as grids: which variants each has, and the published figures.

Figures are those of the CAST paper (arXiv 2311.18825): EPIC-KITCHENS-100 validation, 16 frames, ViT-B/16; top-1 of
verb, noun and action in percent. The tables of CA2ST and MSCA name variants without figures: none are known to us.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cast_ray.errors import UserError
from cast_ray.models.named import NAMED

__all__ = ["TABLES", "Row", "Table", "rows_for"]

Figures = tuple[float, float, float]
"""Top-1 of verb, noun and action, in percent."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant."""

    label: str
    suffix: str = ""
    """Behind the model's name: cast_base_patch16_224 and `space_windows`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Other settings by dotted name."""
    experts: tuple[str, str] | None = None
    """Names of the weights in the spatial and the temporal role, which the user gives files for; None: the base's."""
    published: Figures | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """One ablation."""

    title: str
    rows: tuple[Row, ...]
    base: str = "cast"
    """Family of the model that the rows vary."""


_CAST = Row(label="CAST", published=(72.5, 60.3, 48.7))

TABLES: Mapping[str, Table] = {
    "1a": Table(
        title="information exchange",
        rows=(
            Row(label="independent, fully fine-tuned", suffix="independent_no_adapters", published=(70.7, 50.1, 40.0)),
            Row(label="independent, adapters and heads", suffix="independent", published=(68.1, 54.2, 41.7)),
            _CAST,
        ),
    ),
    "1b": Table(
        title="simple exchanges",
        rows=(
            Row(label="late add", suffix="late_add", published=(68.9, 56.6, 44.2)),
            Row(label="late concat", suffix="late_concat", published=(69.2, 56.4, 44.5)),
            Row(label="lateral", suffix="lateral", published=(68.9, 49.1, 39.0)),
            _CAST,
        ),
    ),
    "1c": Table(
        title="module design",
        rows=(
            Row(label="identity", suffix="independent", published=(68.1, 54.2, 41.7)),
            Row(label="cross-attention", suffix="attention", published=(69.3, 49.4, 39.4)),
            Row(label="cross-attention, then adapter", suffix="attention_adapter", published=(71.3, 60.1, 47.9)),
            Row(label="B-CAST", published=(72.5, 60.3, 48.7)),
        ),
    ),
    "1d": Table(
        title="down projection ratio",
        rows=(
            Row(label="1/8", suffix="ratio8", published=(70.7, 59.9, 47.4)),
            Row(label="1/4", suffix="ratio4", published=(71.3, 59.8, 47.4)),
            Row(label="1/2", published=(72.5, 60.3, 48.7)),
            Row(label="1", suffix="ratio1", published=(72.1, 59.8, 48.6)),
        ),
    ),
    "1e": Table(
        title="windows, temporal to spatial and spatial to temporal",
        rows=(
            Row(label="space-time, space-time", suffix="space_time_windows", published=(71.0, 59.3, 47.2)),
            Row(label="space-time, space", suffix="space_time_to_spatial", published=(71.9, 60.3, 48.4)),
            Row(label="space, space", suffix="space_windows", published=(72.3, 60.2, 48.5)),
            Row(label="time, space", published=(72.5, 60.3, 48.7)),
        ),
    ),
    "1f": Table(
        title="blocks with an exchange",
        rows=(
            Row(label="10 to 12", suffix="last3", published=(71.2, 59.4, 47.4)),
            Row(label="7 to 12", suffix="last6", published=(71.3, 59.9, 47.9)),
            Row(label="4 to 12", suffix="last9", published=(71.8, 60.0, 48.2)),
            Row(label="1 to 12", published=(72.5, 60.3, 48.7)),
        ),
    ),
    "1g": Table(
        title="direction",
        rows=(
            Row(label="none", suffix="independent", published=(68.1, 54.2, 41.7)),
            Row(label="spatial to temporal", suffix="to_temporal_only", published=(71.2, 55.0, 43.7)),
            Row(label="temporal to spatial", suffix="to_spatial_only", published=(68.7, 60.5, 46.7)),
            Row(label="both", published=(72.5, 60.3, 48.7)),
        ),
    ),
    "1h": Table(
        title="roles, spatial and temporal",
        rows=(
            Row(label="CLIP, CLIP", suffix="clip_clip", experts=("clip", "clip"), published=(69.3, 58.8, 46.0)),
            Row(
                label="VideoMAE, CLIP",
                suffix="videomae_clip",
                experts=("videomae", "clip"),
                published=(72.2, 58.8, 47.8),
            ),
            Row(
                label="VideoMAE, VideoMAE",
                suffix="videomae_videomae",
                experts=("videomae", "videomae"),
                published=(69.8, 49.9, 40.3),
            ),
            Row(label="CLIP, VideoMAE", published=(72.5, 60.3, 48.7)),
        ),
    ),
    "5": Table(
        title="weights of the temporal expert, spatial from ImageNet-21k",
        rows=(
            Row(label="EK100", suffix="in21k", experts=("in21k", "videomae-ek100"), published=(70.9, 56.8, 45.5)),
            Row(label="SSV2", suffix="in21k", experts=("in21k", "videomae-ssv2"), published=(71.6, 56.1, 45.3)),
            Row(label="K400", suffix="in21k", experts=("in21k", "videomae-k400"), published=(72.2, 56.4, 45.9)),
        ),
    ),
    "6": Table(
        title="weights of the temporal expert, spatial from CLIP",
        rows=(
            Row(label="EK100", experts=("clip", "videomae-ek100"), published=(72.5, 60.3, 48.7)),
            Row(label="SSV2", experts=("clip", "videomae-ssv2"), published=(73.3, 60.0, 49.0)),
            Row(label="K400", experts=("clip", "videomae-k400"), published=(72.9, 60.4, 49.4)),
        ),
    ),
    "7": Table(
        title="other experts",
        rows=(
            Row(label="CLIP, MVD", suffix="mvd", experts=("clip", "mvd"), published=(73.1, 60.1, 49.3)),
            Row(label="EVA, VideoMAE", suffix="eva", experts=("eva", "videomae"), published=(73.1, 59.8, 49.1)),
            Row(label="EVA, MVD", suffix="eva_mvd", experts=("eva", "mvd"), published=(73.7, 60.1, 49.2)),
            Row(label="CLIP, VideoMAE", published=(72.5, 60.3, 48.7)),
        ),
    ),
    "8": Table(
        title="positions in the exchange",
        rows=(
            Row(label="without", suffix="no_positions", published=(71.3, 59.7, 47.5)),
            Row(label="with", published=(72.5, 60.3, 48.7)),
        ),
    ),
    "ca2st-merge": Table(
        title="how several exchanges reach one expert",
        base="ca2st",
        rows=(
            Row(label="sum"),
            Row(label="average", suffix="average"),
            Row(label="one after the other", suffix="sequence"),
        ),
    ),
    "ca2st-experts": Table(
        title="experts",
        base="ca2st",
        rows=(
            Row(label="audio and spatial (CAVA)", settings={"model.name": "cava", "weights.temporal": None}),
            Row(label="spatial and temporal (CAST)", settings={"model.name": "cast", "weights.audio": None}),
            Row(label="all three (CA2ST)"),
        ),
    ),
    "msca": Table(
        title="what comes from neighbouring frames, by whole heads",
        base="framewise",
        rows=(
            Row(label="frame-wise ViT"),
            Row(label="TokenShift", settings={"model.name": "tokenshift"}),
            *(
                Row(label=f"MSCA-{kind.upper()}", settings={"model.name": f"msca_{kind}"})
                for kind in (
                    "q",
                    "k",
                    "v",
                    "qk",
                    "qv",
                    "kv",
                    "qkv",
                )
            ),
        ),
    ),
    "msca-patch": Table(
        title="what comes from neighbouring frames, by some patches of all heads",
        base="framewise",
        rows=tuple(
            Row(label=f"MSCA-p{kind.upper()}", settings={"model.name": f"msca_patch_{kind}"})
            for kind in ("q", "k", "v", "qk", "qv", "kv", "qkv")
        ),
    ),
}
"""By the number of the CAST paper's table, or by name."""


WEIGHTS_TABLES = ("5", "6")
"""Tables that compare weights alone."""


def rows_for(name: str, model: str, weights: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Label -> settings of each variant of a table.

    Args:
        name: of the table.
        model: the base's full name, such as cast_base_patch16_224 or cast_tiny: its size is that of every variant.
        weights: file or name for each of the expert weights that the table compares; none at all for networks that
            are trained from scratch.

    Raises:
        UserError: there is no such table, no such variant of that size, or weights are missing.
    """
    if name not in TABLES:
        listed = "; ".join(f"{known}: {table.title}" for known, table in TABLES.items())
        raise UserError(f"there is no ablation table '{name}'; there are {listed}")
    table = TABLES[name]
    family, _, size = model.partition("_")
    if family != table.base:
        raise UserError(f"table {name} is about {table.base}_..., but model.name is {model}; give --model.name")
    return {row.label: _settings(name, row, model, size, weights) for row in table.rows}


def _settings(name: str, row: Row, model: str, size: str, weights: Mapping[str, str]) -> dict[str, Any]:
    settings = dict(row.settings)
    of = settings.get("model.name")
    settings["model.name"] = f"{of}_{size}" if of else f"{model}_{row.suffix}".rstrip("_")
    if settings["model.name"] not in NAMED:
        raise UserError(
            f"table {name} has '{row.label}', but there is no model {settings['model.name']}; take another size, for "
            "example --model.name cast_base_patch16_224"
        )
    if row.experts is None or (not weights and name not in WEIGHTS_TABLES):
        return settings
    for role, expert in zip(("spatial", "temporal"), row.experts, strict=True):
        if expert not in weights:
            raise UserError(
                f"'{row.label}' of table {name} has {expert} as its {role} expert; give --expert-weights "
                f"{expert}=FILE_OR_NAME with those of the other rows"
            )
        settings[f"weights.{role}"] = weights[expert]
    return settings
