"""How foreign checkpoints get into single experts of a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cast_ray.errors import UserError
from cast_ray.labels import LABEL
from cast_ray.models.experts.expert import Expert
from cast_ray.models.network import Network
from cast_ray.models.spec import CLIP, TEMPORAL, VideoMAE
from cast_ray.weights.activation import recorded_activation
from cast_ray.weights.fit import fit_expert
from cast_ray.weights.hub import locate, origin
from cast_ray.weights.layout import Translated
from cast_ray.weights.layouts import choose_layout
from cast_ray.weights.read import read_checkpoint, read_settings
from cast_ray.weights.resize import Grid
from cast_ray.weights.strict import load_strictly
from cast_ray.weights.videomae import MVD

__all__ = ["FinalNorm", "load_experts"]

FinalNorm = Literal["load", "identity"]
"""What the final norm of a VideoMAE expert starts as: the file's, or, as CAST's authors have it, an identity."""

POSITIONS = "embedding.positions"
POSITION_TOLERANCE = 1e-3
"""Computed in another precision or on another machine, the same sine-cosine table differs by less."""
OTHER_POSITIONS = "choose the expert 'mvd' for MVD and 'videomae' for VideoMAE (--model.options.temporal mvd)"
CLASSIFIER = f"head.classify.{LABEL}."


def load_experts(
    network: Network,
    sources: Mapping[str, str | Path],
    *,
    folder: Path | None = None,
    final_norm: FinalNorm = "load",
    copy_head: bool = False,
) -> list[str]:
    """Fill experts of a network from foreign checkpoints; adapters, exchanges and head stay as they are.

    The family of the expert and the names in the file choose the translation. Tables of positions are resized to the
    expert's grid.

    Args:
        network: the network.
        sources: path of a file or folder, or name on a hub such as 'ViT-B-16/openai', by role.
        folder: where weights with names lie; None takes CAST_RAY_WEIGHTS or its default.
        final_norm: what the final norm of VideoMAE experts starts as.
        copy_head: whether the classifier of a fine-tuned VideoMAE as the temporal expert becomes that of the network
            where shapes agree, as in the code of CAST's authors.

    Returns:
        What was read and what was changed on the way, in words, for the user to see.

    Raises:
        UserError: a source cannot be found or read, or its tensors are not exactly those of the expert.
    """
    notes = []
    for role, source in sources.items():
        if role not in network.experts:
            raise UserError(f"{source} was given for the expert '{role}', but the model has {list(network.experts)}")
        path = locate(source, folder)
        expert = network.experts[role]
        where = f"{source} for the {role} expert"
        tensors = read_checkpoint(path)
        layout = choose_layout(tensors, expert.spec, where=where)
        activation = _check_activation(expert, path, role, where)
        if layout is MVD and isinstance(expert.spec, VideoMAE) and expert.spec.positions != "axes":
            raise UserError(f"{where} is MVD, which was trained with other fixed positions; {OTHER_POSITIONS}")
        translated = layout.translate(tensors)
        notes.append(f"experts.{role}: {layout.name}, from {origin(source, path)}")
        changes = _fill_expert(expert, translated, where=where, grid=_grid(path, translated), final_norm=final_norm)
        notes += [f"experts.{role}.{change}" for change in [*activation, *changes]]
        if copy_head and role == TEMPORAL and isinstance(expert.spec, VideoMAE):
            notes.append(_copy_head(network, translated))
    return notes


def _fill_expert(
    expert: Expert, translated: Translated, *, where: str, grid: Grid | None, final_norm: FinalNorm
) -> list[str]:
    tensors, notes = dict(translated.tensors), []
    if isinstance(expert.spec, VideoMAE):
        _check_positions(expert, tensors.pop(POSITIONS, None), where)
        if final_norm == "identity":
            tensors |= {"norm.weight": torch.ones(expert.spec.width), "norm.bias": torch.zeros(expert.spec.width)}
            notes.append("norm starts as identity")
    tensors, resized = fit_expert(expert, tensors, grid=grid)
    expected = {name for name, _ in expert.named_parameters() if "_adapter." not in name}
    load_strictly(expert, tensors, unknown=translated.unknown, expected=expected, where=where)
    return notes + resized


def _check_activation(expert: Expert, path: Path, role: str, where: str) -> list[str]:
    """Raise `UserError` if it is known beside the file that CLIP was trained with another activation; a note if not."""
    if not isinstance(expert.spec, CLIP):
        return []
    own, trained = expert.spec.activation, recorded_activation(path, read_settings(path))
    if trained is None:
        return [f"activation not recorded; {own} assumed"]
    if trained != own:
        choice = {"quick_gelu": "clip", "gelu": "clip_gelu"}[trained]
        raise UserError(
            f"{where} was trained with the activation {trained}, the expert has {own}; "
            f"choose the expert '{choice}' (--model.options.{role} {choice})"
        )
    return []


def _check_positions(expert: Expert, table: Tensor | None, where: str) -> None:
    """Raise `UserError` if a file has a fixed table of positions that is not the one the expert computes."""
    own = getattr(expert.embedding, "positions", None)
    if table is None or own is None or table.numel() != own.numel():
        return
    if not torch.allclose(table.float().reshape(own.shape), own.float(), atol=POSITION_TOLERANCE):
        raise UserError(f"{where} was trained with other fixed positions than this expert computes; {OTHER_POSITIONS}")


def _grid(path: Path, translated: Translated) -> Grid | None:
    """Rows and columns of patches, from the layout or from a config.json of Hugging Face's AST."""
    settings = read_settings(path)
    names = ("num_mel_bins", "max_length", "patch_size", "frequency_stride", "time_stride")
    values = [settings.get(name) for name in names]
    if translated.grid is not None or not all(isinstance(value, int) and value > 0 for value in values):
        return translated.grid
    mel_bins, columns, patch, down, right = (int(value) for value in values if value)
    return (mel_bins - patch) // down + 1, (columns - patch) // right + 1


def _copy_head(network: Network, translated: Translated) -> str:
    own = {name.removeprefix(CLASSIFIER): x for name, x in network.named_parameters() if name.startswith(CLASSIFIER)}
    shapes = {name: x.shape for name, x in own.items()}
    if not own or {name: x.shape for name, x in translated.head.items()} != shapes:
        return f"{CLASSIFIER}* not copied: the file has no classifier of that shape"
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(translated.head[name])
    return f"{CLASSIFIER}* copied from the file"
