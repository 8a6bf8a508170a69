"""How an exported file becomes a network again, in any Python program::

exported = load_exported("model.safetensors")
logits = exported.network(video)  # [B, 3, T, H, W], as exported.contents.views and .pixels say
names = exported.label_map.names["label"]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs
import torch

from cast_ray.data.storage import absolute, filesystem, retried
from cast_ray.errors import UserError
from cast_ray.export.contents import Contents, check_inputs
from cast_ray.export.fetch import local_files
from cast_ray.export.file import SUFFIX, contents_at, read_tensors
from cast_ray.labels import LabelMap
from cast_ray.models.assemble import assemble
from cast_ray.models.named import spec_of, trains_experts
from cast_ray.models.network import Network
from cast_ray.weights.strict import load_strictly

__all__ = ["Exported", "exported_contents", "load_exported"]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A trained model."""

    network: Network
    """On the CPU, in float32 and evaluation mode; what was frozen in training is."""
    contents: Contents
    """How to feed it, and where it comes from."""

    @property
    def label_map(self) -> LabelMap:
        """Class names in the order of the logits."""
        return self.contents.label_map


def load_exported(path: str | Path) -> Exported:
    """The model of a file that `cast-ray export` has written. Nothing in the file is ever executed.

    Args:
        path: path or URI.

    Raises:
        UserError: there is no such file, it is no exported one, it is damaged, or of another version.
    """
    contents = exported_contents(path)
    storage, place = filesystem(absolute(path))
    folder, _, name = place.rpartition("/")
    with local_files(storage, folder, (name,)) as local:
        tensors = read_tensors(local / name, contents)
    with torch.random.fork_rng(devices=[]):  # the random weights are all replaced
        network = assemble(spec_of(contents.model), contents.label_map.num_classes)
    load_strictly(network, tensors, where=str(path))
    network.freeze(train_experts=trains_experts(contents.model))
    return Exported(network=network.eval(), contents=contents)


def exported_contents(path: str | Path) -> Contents:
    """What an exported file says of itself, without its tensors; errors as of `load_exported`."""
    storage, place = filesystem(absolute(path))
    is_file = retried(lambda: storage.get_file_info(place), what=str(path)).type == pafs.FileType.File
    contents = contents_at(storage, place) if is_file and place.endswith(SUFFIX) else None
    if contents is None:
        what = "is not a file of `cast-ray export`" if is_file else "does not exist"
        raise UserError(f"'{path}' {what}; give a .safetensors file that `cast-ray export` has written")
    check_inputs(contents, where=str(path))
    return contents
