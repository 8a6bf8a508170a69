"""What a report knows about one run; everything but the predictions may be missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_ray.evaluation.predictions import Predictions

__all__ = ["Attention", "AttentionPicture", "RunRecord", "Video"]


@dataclass(frozen=True, kw_only=True)
class Video:
    """An encoded video that a browser can play."""

    data: bytes
    mime: str = "video/mp4"
    poster: bytes | None = None
    """A frame as JPEG, for paper, and where the video does not play."""


@dataclass(frozen=True, kw_only=True)
class AttentionPicture:
    """A picture or film of what a model looks at in a clip."""

    clip_id: str
    title: str
    caption: str
    data: bytes
    mime: str


@dataclass(frozen=True, kw_only=True)
class Attention:
    """What is known of a run's attention."""

    pictures: Sequence[AttentionPicture] = ()
    entropy: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    """Name of an exchange -> entropy of its attention in each block from the first on, as a share of the largest that
    is possible; None in a block without the exchange."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything that the report shows about one run."""

    name: str
    predictions: Predictions
    config: Mapping[str, Any] = field(default_factory=dict)
    """The run's configuration as `RunConfig.to_dict` gives it, perhaps of another version; empty: unknown."""
    history: Sequence[Mapping[str, Any]] = ()
    """The run's log, see `cast_ray.training.progress`."""
    videos: Mapping[str, Video] = field(default_factory=dict)
    """Clip id -> video, for the few clips to show (see `cast_ray.report.examples`)."""
    quarantined: Sequence[tuple[str, str]] | None = None
    """(clip id, reason) of the clips that could not be read; None: unknown."""
    seconds: float | None = None
    """Duration of the run."""
    training_clips: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    """Label field -> [classes] training clips; empty: unknown."""
    dataset: str | None = None
    """Path or URI of the prepared dataset."""
    attention: Attention = field(default_factory=Attention)

    def __post_init__(self) -> None:
        unknown = self.videos.keys() - set(self.predictions.clip_ids)
        if unknown:
            raise ValueError(f"videos without a prediction: {sorted(unknown)[:3]}")
