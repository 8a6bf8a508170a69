"""How weights from files get into a whole network, and how to tell later that they are the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cast_ray.errors import UserError
from cast_ray.models.network import Network
from cast_ray.models.spec import AUDIO, SPATIAL, TEMPORAL
from cast_ray.weights.cast_author import from_author
from cast_ray.weights.experts import FinalNorm, load_experts
from cast_ray.weights.fit import fit_network
from cast_ray.weights.hub import locate
from cast_ray.weights.layout import Tensors
from cast_ray.weights.layouts import WHOLE, layouts_of, whole_network_of
from cast_ray.weights.read import read_checkpoint
from cast_ray.weights.strict import load_strictly

__all__ = ["FinalNorm", "frozen_fingerprint", "load_experts", "load_network", "read_checkpoint"]

CLASSIFIERS = "head.classify."
STATE_FILE = "state.json"
"""What tells a checkpoint folder of a training run."""
RANDOM = "random"


def load_network(
    network: Network, source: str | Path, *, folder: Path | None = None, keep_head: bool = False
) -> list[str]:
    """Fill a whole network: from a released CAST, from our own state dict, or from the checkpoint of a training run.

    A run's checkpoint holds only what trained; its experts are loaded first, from where the run had them. Tables of
    positions are resized.

    Args:
        network: the network.
        source: path of a file or folder, or name on a hub.
        folder: where weights with names lie; None takes CAST_RAY_WEIGHTS or its default.
        keep_head: whether the network's own classifiers stay, for other classes than the source's.

    Returns:
        As `load_experts`.

    Raises:
        UserError: the source cannot be found or read, is a single expert, or does not fit the network.
    """
    path = locate(source, folder)
    if (path / STATE_FILE).is_file():
        return _load_run(network, path, folder=folder, keep_head=keep_head)
    tensors = read_checkpoint(path)
    kind = whole_network_of(tensors)
    if kind is None:
        found = layouts_of(tensors)
        what = f"looks like {found[0].name}" if found else "has no known layout"
        raise UserError(f"{source} {what}, not like a whole network; give it as weights of one expert")
    ours, unknown = from_author(tensors) if kind == WHOLE else (dict(tensors), [])
    notes = [f"{kind}, from {source}"]
    return notes + _fill_network(network, ours, unknown=unknown, keep_head=keep_head, where=str(source))


def frozen_fingerprint(network: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of the parameters that do not train, as hex digits.

    A checkpoint stores it instead of the frozen weights; equal fingerprints mean bitwise equal weights.
    """
    return _fingerprint((name, x) for name, x in network.named_parameters() if not x.requires_grad)


def _fingerprint(parameters: Iterable[tuple[str, nn.Parameter]]) -> str:
    digest = hashlib.sha256()
    for name, parameter in sorted(parameters):
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What a checkpoint folder of a training run says of the weights that are not in it."""

    sources: Mapping[str, str]
    network: str | None
    final_norm: FinalNorm
    frozen: str


def _load_run(network: Network, path: Path, *, folder: Path | None, keep_head: bool) -> list[str]:
    run = _read_run(path)
    tensors = read_checkpoint(path)
    frozen = {name for name, _ in network.named_parameters()} - tensors.keys()
    notes = [f"{len(tensors)} trained tensors, from {path}"]
    if frozen and run.network is not None:
        notes += load_network(network, run.network, folder=folder, keep_head=True)
    if frozen:
        sources = {role: source for role, source in run.sources.items() if source != RANDOM}
        notes += load_experts(network, sources, folder=folder, final_norm=run.final_norm)
    left = sorted(name for name in frozen if not name.startswith("experts."))
    if left or (frozen and RANDOM in run.sources.values()):
        raise UserError(
            f"the checkpoint {path} does not fill this network: {len(left)} tensors are missing {left[:3]}, and its "
            f"frozen experts come from {dict(run.sources)}; build the network from the checkpoint's own configuration"
        )
    changes = _fill_network(network, tensors, keep_head=keep_head, where=str(path), expected=set(tensors))
    if frozen and not any("resized" in note for note in [*notes, *changes]):
        _check_frozen(network, frozen, run, path)
    return notes + changes


def _read_run(path: Path) -> _Run:
    from cast_ray.training.checkpoint import read_state

    state = read_state(path)
    weights = dict(state.config.get("weights", {}))
    return _Run(
        sources={role: weights[role] for role in (SPATIAL, TEMPORAL, AUDIO) if weights.get(role) is not None},
        network=weights.get("network"),
        final_norm=weights.get("temporal_norm", "load"),
        frozen=state.frozen,
    )


def _check_frozen(network: Network, frozen: set[str], run: _Run, path: Path) -> None:
    found = _fingerprint((name, x) for name, x in network.named_parameters() if name in frozen)
    if found != run.frozen:
        raise UserError(
            f"the checkpoint {path} was trained on frozen experts with the fingerprint {run.frozen}, but "
            f"{dict(run.sources)} give {found}; put the same files there as in training"
        )


def _fill_network(
    network: Network,
    tensors: Tensors,
    *,
    where: str,
    unknown: list[str] | None = None,
    expected: set[str] | None = None,
    keep_head: bool = False,
) -> list[str]:
    fitted, notes = fit_network(network, tensors)
    wanted = {name for name, _ in network.named_parameters()} if expected is None else set(expected)
    if keep_head:
        wanted = {name for name in wanted if not name.startswith(CLASSIFIERS)}
        fitted = {name: x for name, x in fitted.items() if not name.startswith(CLASSIFIERS)}
        notes.append(f"{CLASSIFIERS}* left as they are")
    load_strictly(network, fitted, unknown=unknown or (), expected=wanted, where=where)
    return notes
