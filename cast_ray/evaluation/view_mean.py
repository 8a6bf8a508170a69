"""What the views of a clip say together."""

from __future__ import annotations

from torch import Tensor

from cast_ray.settings.scale import ViewMean

__all__ = ["mean_over_views"]


def mean_over_views(logits: Tensor, clips: int, view_mean: ViewMean) -> tuple[Tensor, Tensor]:
    """Probabilities of clips, and of each of their views.

    Args:
        logits: [clips x V, classes], the views of the first clip first.
        clips: how many.
        view_mean: "probabilities": softmax of each view, then the mean; "logits": mean, then softmax.

    Returns:
        [clips, classes] and [clips, V, classes], float32.
    """
    scores = logits.float().unflatten(0, (clips, -1))
    views = scores.softmax(-1)
    return (views.mean(1) if view_mean == "probabilities" else scores.mean(1).softmax(-1)), views
