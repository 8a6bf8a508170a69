"""What the EPIC-KITCHENS-100 action recognition challenge is sent: scores of every clip as JSON, perhaps zipped.

The format is that of https://github.com/epic-kitchens/C1-Action-Recognition (create_submission.py, utils/challenge.py):
version 0.2, the three supervision levels of https://github.com/epic-kitchens/sls, and for every narration id the score
of each verb and noun; the archive holds test.json. The optional 100 action scores with keys such as "3,12" are those of
the format of the challenge of EPIC-KITCHENS-55, as documented with its starter kit.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_ray.data.storage import filesystem, written_whole
from cast_ray.errors import UserError
from cast_ray.evaluation.actions import ROWS_AT_ONCE, top_actions
from cast_ray.evaluation.predictions import Predictions
from cast_ray.labels import NOUN, VERB

__all__ = ["SupervisionLevels", "check_submission_name", "submission", "write_submission"]

CLASSES = {VERB: 97, NOUN: 300}
VERB_KEYS, NOUN_KEYS = (tuple(map(str, range(size))) for size in CLASSES.values())
NUM_ACTIONS = 100
DECIMALS = 6
"""Of a logarithm: a probability to a millionth of itself."""
NAME_IN_ARCHIVE = "test.json"
SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, kw_only=True)
class SupervisionLevels:
    """What a method has learned from, each from 0 (nothing) to 5; the challenge's own rules define the levels."""

    pretraining: int
    """SLS-PT: 2 public images and videos, 3 self-supervised on public data, 5 private data, which CLIP's are."""
    training_labels: int
    """SLS-TL: 3 for classes and times of the segments."""
    training_data: int
    """SLS-TD: 3 for the training split, 4 with the validation split."""

    def __post_init__(self) -> None:
        for value in (self.pretraining, self.training_labels, self.training_data):
            if not 0 <= value <= 5:
                raise UserError(f"a supervision level is {value}; give three numbers from 0 to 5: PT, TL and TD")


def submission(predictions: Predictions, levels: SupervisionLevels) -> dict[str, Any]:
    """The submission as a JSON object.

    Verbs and nouns get the logarithm of their probability, because the challenge applies the softmax to these scores
    before it multiplies them: given probabilities, it would rank actions by another score. Actions get the product.

    Args:
        predictions: with narration ids as clip ids; labels are not used.
        levels: of supervision.

    Raises:
        UserError: the predictions are not for 97 verbs and 300 nouns.
    """
    sizes = predictions.label_map.num_classes
    if any(sizes.get(field) != size for field, size in CLASSES.items()):
        raise UserError(
            f"the predictions have {sizes} classes, a submission to EPIC-KITCHENS-100 needs {CLASSES}; give "
            "predictions for that dataset"
        )
    results: dict[str, Any] = {}
    verbs, nouns = predictions.probabilities[VERB], predictions.probabilities[NOUN]
    for start in range(0, len(verbs), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        pairs, scores = top_actions(verbs[rows], nouns[rows], NUM_ACTIONS)
        for clip_id, verb, noun, pair, score in zip(
            predictions.clip_ids[rows], _logarithms(verbs[rows]), _logarithms(nouns[rows]), pairs, scores, strict=True
        ):
            results[clip_id] = {
                "verb": dict(zip(VERB_KEYS, verb, strict=True)),
                "noun": dict(zip(NOUN_KEYS, noun, strict=True)),
                "action": {f"{v},{n}": value for (v, n), value in zip(pair.tolist(), score.tolist(), strict=True)},
            }
    return {
        "version": "0.2",
        "challenge": "action_recognition",
        "sls_pt": levels.pretraining,
        "sls_tl": levels.training_labels,
        "sls_td": levels.training_data,
        "results": results,
    }


def write_submission(place: str | Path, predictions: Predictions, levels: SupervisionLevels) -> None:
    """Write the submission to a path or URI: `.zip` as the challenge takes it, `.json` to look at.

    Raises:
        UserError: the name ends otherwise, or as `submission`.
    """
    check_submission_name(str(place))
    text = json.dumps(submission(predictions, levels)).encode()
    if str(place).endswith(".zip"):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(NAME_IN_ARCHIVE, text)
        text = archive.getvalue()
    storage, path = filesystem(str(place))
    storage.create_dir(path.rpartition("/")[0], recursive=True)
    with written_whole(storage, path) as sink:
        sink.write(text)


def check_submission_name(name: str) -> None:
    """Raise `UserError` unless the name says which kind of file it is."""
    if not name.endswith((".json", ".zip")):
        raise UserError(f"the submission is to be called '{name}'; give a name that ends in .zip or .json")


def _logarithms(probabilities: npt.NDArray[np.float32]) -> Sequence[list[float]]:
    """Rounded, or they are half of the file; JSON has no minus infinity: 0 counts as the smallest that there is."""
    logarithms = np.log(np.maximum(probabilities, SMALLEST).astype(np.float64))
    rows: list[list[float]] = np.round(logarithms, DECIMALS).tolist()
    return rows
