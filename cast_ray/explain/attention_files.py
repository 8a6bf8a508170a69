"""Which files show the attention of a clip, and of the examples of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from cast_ray.explain.clip_attention import ClipAttention, mean_entropy
from cast_ray.explain.film import film
from cast_ray.explain.overlay import blocks_figure, entropy_figure, over_time_figure, overview_figure
from cast_ray.explain.pictures import encoded

__all__ = ["clip_files", "report_files"]

CAPTION = (
    "Red places get more attention than if it were spread evenly, blue ones less; in the last block that counts. "
    "Prediction: {verdict}."
)


def clip_files(clip: ClipAttention) -> dict[str, bytes]:
    """Contents by name of everything that is written of one clip."""
    entropy = mean_entropy([clip])
    files = {
        "overview.png": encoded(overview_figure(clip), "png"),
        "entropy.png": encoded(entropy_figure(entropy, of=clip.clip_id), "png"),
        "overlay.mp4": film(clip),
    }
    for name, maps in clip.maps.items():
        files[f"{name}.png"] = encoded(blocks_figure(clip, maps), "png")
        over_time = over_time_figure(clip, maps)
        if over_time is not None:
            files[f"{name}_over_time.png"] = encoded(over_time, "png")
    summary = {
        "clip_id": clip.clip_id,
        "predicted": {field: {"name": name, "probability": p} for field, (name, p) in clip.predicted.items()},
        "true": None if clip.true is None else dict(clip.true),
        "entropy": entropy,
    }
    return files | {"attention.json": json.dumps(summary, indent=2).encode()}


def report_files(clips: Sequence[ClipAttention]) -> dict[str, bytes]:
    """Contents by name of what `cast-ray report` shows: an overview of each clip, their index, and the mean entropy."""
    files: dict[str, bytes] = {}
    index = []
    for number, clip in enumerate(clips):
        name = f"{number:02d}-{re.sub('[^A-Za-z0-9_.-]', '_', clip.clip_id)[:80]}.png"
        files[name] = encoded(overview_figure(clip), "png")
        index.append(
            {
                "clip_id": clip.clip_id,
                "title": clip.clip_id,
                "file": name,
                "caption": CAPTION.format(verdict=clip.verdict),
            }
        )
    entropy = mean_entropy(clips)
    files["entropy.png"] = encoded(entropy_figure(entropy, of=f"mean over {len(clips)} clips"), "png")
    files["entropy.json"] = json.dumps(entropy, indent=2).encode()
    return files | {"index.json": json.dumps(index, indent=2).encode()}  # last: it names the others
