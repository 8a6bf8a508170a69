"""Whether training and validation have the same classes."""

from __future__ import annotations

from cast_ray.data.catalog.videos import examples
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest

__all__ = ["split_remarks"]

LACKING = {
    TRAIN: "validation clips but no training clip, so that no model can learn them",
    VALIDATION: "training clips but no validation clip, so that nothing measures them",
}


def split_remarks(manifest: Manifest) -> list[str]:
    """Sentences to print about the classes that one split has and the other lacks; none if there is one split alone.

    Classes that neither has are no difference: official class lists are longer than most parts of a dataset.
    """
    splits = {split: [clip.labels for clip in manifest.clips if clip.split == split] for split in LACKING}
    if not all(splits.values()):
        return []
    remarks = []
    for column, (field, names) in enumerate(manifest.label_map.names.items()):
        present = {split: {labels[column] for labels in rows} for split, rows in splits.items()}
        for split, lacking in LACKING.items():
            other = VALIDATION if split == TRAIN else TRAIN
            classes = [names[index] for index in sorted(present[other] - present[split])]
            if classes:
                remarks.append(
                    f"{len(classes)} of {len(names)} classes of '{field}' have {lacking}: {examples(classes)}"
                )
    return remarks
