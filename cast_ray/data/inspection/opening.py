"""Which prepared dataset a path means, and what is there instead if it means none."""

from __future__ import annotations

import pyarrow.fs as pafs

from cast_ray.data.shards import ShardedDataset, open_complete, open_dataset
from cast_ray.data.storage import filesystem, joined, retried
from cast_ray.errors import UserError

__all__ = ["open_at"]

COMPLETE, BEGUN = "dataset.json", "preparation.json"


def open_at(root: str) -> ShardedDataset:
    """The prepared dataset at `root`, or the only one below it, where runs keep theirs (`root`/shards/FINGERPRINT).

    Raises:
        UserError: there is none, it is not complete, there are several below, or as `open_dataset`.
    """
    dataset = open_dataset(root)
    if dataset is not None:
        return dataset
    begun, below = retried(lambda: (_shards_of_begun(root), _below(root)), what=root)
    if begun is not None:
        raise UserError(
            f"the dataset at '{root}' is not complete: {begun} shards are written, {COMPLETE} is not; run the same "
            "preparation again, it continues where it stopped"
        )
    if len(below) > 1:
        listed = ", ".join(f"{uri}{'' if complete else ' (not complete)'}" for uri, complete in below.items())
        raise UserError(f"'{root}' holds {len(below)} datasets; give one of them: {listed}")
    return open_at(next(iter(below))) if below else open_complete(root)


def _shards_of_begun(root: str) -> int | None:
    """How many shards a preparation has written that did not come to its end; None if none was begun here."""
    storage, base = filesystem(root)
    if not _is_file(storage, f"{base}/{BEGUN}"):
        return None
    files = storage.get_file_info(pafs.FileSelector(base, recursive=True))
    return sum(info.path.endswith(".parquet") and "/shard-" in info.path for info in files)


def _below(root: str) -> dict[str, bool]:
    """URIs of the datasets in the folder and in its folder `shards`, and whether they are complete."""
    storage, base = filesystem(root)
    found = {}
    for folder in (base, f"{base}/shards"):
        if storage.get_file_info(folder).type != pafs.FileType.Directory:
            continue
        for info in storage.get_file_info(pafs.FileSelector(folder)):
            complete = _is_file(storage, f"{info.path}/{COMPLETE}")
            if complete or _is_file(storage, f"{info.path}/{BEGUN}"):
                found[joined(root, info.path.removeprefix(f"{base}/"))] = complete
    return dict(sorted(found.items()))


def _is_file(storage: pafs.FileSystem, path: str) -> bool:
    return storage.get_file_info(path).type == pafs.FileType.File
