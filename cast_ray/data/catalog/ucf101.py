"""Which clips UCF-101 has, read from its official text files.

Layout (UCF101TrainTestSplits-RecognitionTask.zip of https://www.crcv.ucf.edu/data/UCF101.php, folder
ucfTrainTestlist): classInd.txt has "1 ApplyEyeMakeup", counted from 1; trainlist01.txt has
"ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1", testlist01.txt the same without the class; 02 and 03 likewise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cast_ray.data.catalog.entries import Entry, OnSkip, Source, build_manifest, refuse
from cast_ray.data.catalog.files import find_annotation, index_names, read_lines, whole_number
from cast_ray.data.catalog.videos import VideoFolder, below
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap

__all__ = ["read_ucf101"]


def read_ucf101(
    videos: Path | str, annotations: Path | str, *, split: Literal[1, 2, 3] = 1, on_skip: OnSkip = refuse
) -> Manifest:
    """Read a dataset in the layout of UCF-101; the test list is the validation set.

    Args:
        videos: folder with one subfolder per class, or with all the files themselves.
        annotations: folder with classInd.txt, trainlist0<split>.txt and testlist0<split>.txt.
        split: which of the three official divisions; results are the mean over all.
        on_skip: what to do with clips that cannot be used; see `cast_ray.data.catalog.entries.OnSkip`.

    Raises:
        UserError: a folder, file or video is missing, a file is not what it should be, a class is unknown or differs
            from the folder's, or a list is empty.
    """
    if split not in (1, 2, 3):
        raise UserError(f"UCF-101 has no split {split}; choose 1, 2 or 3")
    folder = VideoFolder.scan(videos)
    names = _read_classes(find_annotation(annotations, "classInd.txt"))
    flat = not any("/" in key for key in folder.files)
    sources = [
        _read_list(find_annotation(annotations, f"{stem}list0{split}.txt"), kind, names, flat=flat)
        for kind, stem in ((TRAIN, "train"), (VALIDATION, "test"))
    ]
    return build_manifest(sources, folder, LabelMap({LABEL: names}), on_skip)


def _read_classes(path: Path) -> tuple[str, ...]:
    pairs = []
    for line, text in read_lines(path):
        index, _, name = text.partition(" ")
        pairs.append((whole_number(index, f"'{path}', line {line}: the class index"), name.strip()))
    return index_names(pairs, path=path, first=1)


def _read_list(path: Path, split: str, names: tuple[str, ...], *, flat: bool) -> Source:
    indices = {name: index for index, name in enumerate(names)}
    entries = []
    for line, text in read_lines(path):
        where = f"'{path}', line {line}"
        file, _, given = text.partition(" ")
        name = below(file, where)
        label = indices.get(name.parent.name)
        if label is None:
            raise UserError(f"{where}: class {name.parent.name!r} of '{file}' is not in classInd.txt; correct the file")
        if given and whole_number(given, f"{where}: the class index") != label + 1:
            raise UserError(
                f"{where}: '{file}' has the class index {given}, but classInd.txt says {label + 1}; correct one"
            )
        entries.append(
            Entry(
                place=f"line {line}",
                clip_id=name.stem,
                names=(name.stem if flat else str(name.with_suffix("")),),
                labels=(label,),
            )
        )
    return Source(path=path, split=split, entries=entries)
