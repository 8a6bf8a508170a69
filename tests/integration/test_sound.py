"""A model that listens, on a real cluster: from clips with and without sound to the table of the comparison."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cast_ray.evaluation.predictions import read_predictions


def test_a_listening_model_trains_and_is_compared(submit: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    flags = ["--storage", str(tmp_path), "--models", "ca2st_tiny_clock", "--optim.epochs", "1"]
    flags += ["--train-clips", "64", "--validation-clips", "32", "--silent-share", "0.25"]
    flags += ["--optim.warmup-epochs", "0", "--log-every", "1"]
    status, output = submit(*flags, job="demo_all")
    assert status == 0, output
    assert re.search(r"ca2st_tiny_clock\W+\d+\.\d%\W+\d+\.\d%\W+\d+\.\d%", output), output
    assert "unreadable" not in output  # a clip without a sound track is a clip
    figures = json.loads((tmp_path / "comparison.json").read_text())["ca2st_tiny_clock"]
    assert {"verb_top1", "noun_top1", "sound_top1", "action_top1"} <= figures.keys()
    (predictions,) = (read_predictions(path) for path in tmp_path.glob("ca2st_tiny_clock*/predictions.parquet"))
    assert len(predictions.clip_ids) == 32
    assert set(predictions.num_views.tolist()) == {6}
    assert all(np.isfinite(scores).all() for scores in predictions.probabilities.values())
