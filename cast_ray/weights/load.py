"""How weights from files get into a whole network, and how to tell later that they are the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from cast_ray.errors import UserError
from cast_ray.export.file import read_contents, read_tensors
from cast_ray.models.named import spec_of
from cast_ray.models.network import Network
from cast_ray.models.spec import AUDIO, SPATIAL, TEMPORAL, NetworkSpec
from cast_ray.weights.cast_author import from_author
from cast_ray.weights.compare import differences
from cast_ray.weights.experts import FinalNorm, load_experts
from cast_ray.weights.fingerprint import tensor_fingerprint
from cast_ray.weights.fit import fit_network
from cast_ray.weights.hub import locate, origin
from cast_ray.weights.layout import Tensors
from cast_ray.weights.layouts import WHOLE, layouts_of, whole_network_of
from cast_ray.weights.read import read_checkpoint
from cast_ray.weights.strict import load_strictly

__all__ = ["FinalNorm", "frozen_fingerprint", "load_experts", "load_network", "read_checkpoint"]

HEAD, CLASSIFIERS = "head.", "head.classify."
STATE_FILE = "state.json"
"""What tells a checkpoint folder of a training run."""
SHOWN = 6
"""At most so many differences of a model are listed."""
RANDOM = "random"


def load_network(
    network: Network, source: str | Path, *, folder: Path | None = None, keep_head: bool = False
) -> list[str]:
    """Fill a whole network: from a released CAST, our own state dict, an exported file, or the checkpoint of a run.

    A run's checkpoint holds only what trained; its experts are loaded first, from where the run had them. Tables of
    positions are resized.

    Args:
        network: the network.
        source: path of a file or folder, or name on a hub.
        folder: where weights with names lie; None takes CAST_RAY_WEIGHTS or its default.
        keep_head: whether the network's own classifiers stay, for other classes than the source's; its whole head does
            if the label fields differ.

    Returns:
        As `load_experts`.

    Raises:
        UserError: the source cannot be found or read, is a single expert, does not fit the network, or is a run or
            export of another model whose tensors would fit by chance.
    """
    path = locate(source, folder)
    if (path / STATE_FILE).is_file():
        return _load_run(network, path, folder=folder, keep_head=keep_head)
    exported = read_contents(path)
    if exported is not None:
        tensors = read_tensors(path, exported)
        _check_model(spec_of(exported.model), network, tensors, keep_head=keep_head, where=path)
        notes = [f"exported {exported.model.name}, from {path}"]
        return notes + _fill_network(network, tensors, keep_head=keep_head, where=str(source))
    tensors = read_checkpoint(path)
    kind = whole_network_of(tensors)
    if kind is None:
        found = layouts_of(tensors)
        what = f"looks like {found[0].name}" if found else "has no known layout"
        raise UserError(f"{source} {what}, not like a whole network; give it as weights of one expert")
    ours, unknown = from_author(tensors) if kind == WHOLE else (dict(tensors), [])
    notes = [f"{kind}, from {origin(source, path)}"]
    return notes + _fill_network(network, ours, unknown=unknown, keep_head=keep_head, where=str(source))


def frozen_fingerprint(network: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of the parameters that do not train, as hex digits.

    A checkpoint stores it instead of the frozen weights; equal fingerprints mean bitwise equal weights.
    """
    return tensor_fingerprint((name, x) for name, x in network.named_parameters() if not x.requires_grad)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What a checkpoint folder of a training run says of the weights that are not in it."""

    sources: Mapping[str, str]
    network: str | None
    spec: NetworkSpec
    """What the run's model was made of."""
    final_norm: FinalNorm
    frozen: str


def _load_run(network: Network, path: Path, *, folder: Path | None, keep_head: bool) -> list[str]:
    run = _read_run(path)
    tensors = read_checkpoint(path)
    _check_model(run.spec, network, tensors, keep_head=keep_head, where=path)
    kept, _ = _kept_head(network, tensors, keep_head=keep_head)
    frozen = {name for name, _ in network.named_parameters() if not _starts(name, kept)} - tensors.keys()
    notes = [f"{len(tensors)} trained tensors, from {path}"]
    if frozen and run.network is not None:
        notes += load_network(network, run.network, folder=folder, keep_head=True)
    if frozen:
        sources = {role: source for role, source in run.sources.items() if source != RANDOM}
        notes += load_experts(network, sources, folder=folder, final_norm=run.final_norm)
    left = sorted(name for name in frozen if not name.startswith("experts."))
    if left:
        raise UserError(
            f"the checkpoint {path} does not fill this network: {len(left)} tensors are missing {left[:3]}. For other "
            "labels start with a new head (--weights.new-head)"
        )
    if frozen and RANDOM in run.sources.values():
        raise UserError(
            f"the checkpoint {path} does not fill this network: its frozen experts come from {dict(run.sources)}, and "
            "random weights are not stored"
        )
    changes = _fill_network(network, tensors, keep_head=keep_head, where=str(path), expected=set(tensors))
    if frozen and not any("resized" in note for note in [*notes, *changes]):
        _check_frozen(network, frozen, run, path)
    return notes + changes


def _check_model(saved: NetworkSpec, network: Network, tensors: Tensors, *, keep_head: bool, where: Path) -> None:
    """Raise `UserError` if weights of `saved` mean something else in `network`, even where all shapes agree."""
    kept, _ = _kept_head(network, tensors, keep_head=keep_head)
    other = differences(saved, network.spec, with_head=kept != HEAD)
    if other:
        raise UserError(
            f"the checkpoint {where} is of another model than this network: {'; '.join(other[:SHOWN])}"
            f"{' ...' if len(other) > SHOWN else ''}. Build the network from the checkpoint's own configuration"
        )


def _read_run(path: Path) -> _Run:
    from cast_ray.config import RunConfig
    from cast_ray.training.checkpoint import read_state

    state = read_state(path)
    weights = dict(state.config.get("weights", {}))
    return _Run(
        sources={role: weights[role] for role in (SPATIAL, TEMPORAL, AUDIO) if weights.get(role) is not None},
        network=weights.get("network"),
        spec=spec_of(RunConfig.from_dict(state.config).model),
        final_norm=weights.get("temporal_norm", "load"),
        frozen=state.frozen,
    )


def _check_frozen(network: Network, frozen: set[str], run: _Run, path: Path) -> None:
    found = tensor_fingerprint((name, x) for name, x in network.named_parameters() if name in frozen)
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
    kept, note = _kept_head(network, tensors, keep_head=keep_head)
    wanted = {name for name in wanted if not _starts(name, kept)}
    fitted = {name: x for name, x in fitted.items() if not _starts(name, kept)}
    notes += [note] if note else []
    load_strictly(network, fitted, unknown=unknown or (), expected=wanted, where=where)
    return notes


def _kept_head(network: Network, tensors: Tensors, *, keep_head: bool) -> tuple[str | None, str | None]:
    """How the names of parameters start that stay as the network has them, and that in words; None for neither."""
    if not keep_head:
        return None, None
    given, own = _label_fields(tensors), _label_fields(dict(network.named_parameters()))
    if given == own:
        return CLASSIFIERS, f"{CLASSIFIERS}* left as they are"
    return HEAD, f"{HEAD}* left as it is: the source classifies {sorted(given)}, this network {sorted(own)}"


def _label_fields(tensors: Tensors) -> set[str]:
    return {name.split(".")[2] for name in tensors if name.startswith(CLASSIFIERS)}


def _starts(name: str, prefix: str | None) -> bool:
    return prefix is not None and name.startswith(prefix)
