"""A trained model as one network with all its weights, whether it lies in a run, a checkpoint or an exported file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow.fs as pafs

from cast_ray.config import RunConfig
from cast_ray.data.storage import filesystem, retried
from cast_ray.errors import UserError
from cast_ray.export.contents import Contents, contents_of
from cast_ray.export.fetch import find_checkpoint, local_weights
from cast_ray.export.file import SUFFIX
from cast_ray.export.load import load_exported
from cast_ray.export.moved import MovedWeights, found_weights
from cast_ray.models.network import Network
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import load_weights, read_state
from cast_ray.weights.fingerprint import tensor_fingerprint

__all__ = ["WholeModel", "read_whole"]


@dataclass(frozen=True, kw_only=True)
class WholeModel:
    """A trained model in memory."""

    network: Network
    """On the CPU, in float32 and evaluation mode."""
    contents: Contents
    """What an exported file says of it; its fingerprint of all tensors is that of float32."""
    origin: str
    """The checkpoint's folder on its storage, or the exported file."""


def read_whole(
    place: str, moved: MovedWeights | None = None, *, say: Callable[[str], object] = lambda _: None
) -> WholeModel:
    """Read a trained model. A run with a moving average has the averaged weights in its checkpoints.

    Args:
        place: path or URI of a run, whose best checkpoint is taken, of a checkpoint, or of a .safetensors file that
            `cast-ray export` has written.
        moved: where the run's weights are now.
        say: is told what is being done.

    Raises:
        UserError: there is no such thing, or weights are missing or not those of the training.
    """
    moved = moved or MovedWeights()
    say("looking for the model")
    storage, path = filesystem(place)
    if path.endswith(SUFFIX) and retried(lambda: storage.get_file_info(path), what=place).type == pafs.FileType.File:
        if moved.given():
            raise UserError(f"--weights.{next(iter(moved.given()))} is given, but {place} holds all weights")
        exported = load_exported(place)
        return WholeModel(network=exported.network, contents=exported.contents, origin=path)
    storage, folder = find_checkpoint(place)
    say(f"reading {folder}")
    with local_weights(storage, folder) as local:
        state = read_state(local)
        config = RunConfig.from_dict(state.config)
        weights = found_weights(config.model, config.weights, moved)
        say("building the network")
        network, frozen = build_network(config.model, weights, state.label_map, seed=config.seed)
        load_weights(local, network, frozen=frozen)
    say("computing the fingerprint")
    contents = contents_of(config, state, tensors=tensor_fingerprint(network.named_parameters()))
    return WholeModel(network=network.eval(), contents=contents, origin=folder)
