"""What views say together: against NumPy, view by view."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cast_ray.evaluation.view_mean import mean_over_views


def softmax(scores: np.ndarray) -> np.ndarray:
    odds = np.exp(scores - scores.max())
    return odds / odds.sum()


@pytest.mark.parametrize("view_mean", ["probabilities", "logits"])
def test_the_mean_is_of_probabilities_or_of_scores(view_mean):
    logits = torch.randn(3 * 4, 5, generator=torch.Generator().manual_seed(0)) * 3
    mean, views = mean_over_views(logits, 3, view_mean)
    for clip in range(3):
        of_clip = logits[4 * clip : 4 * clip + 4].double().numpy()
        expected = np.stack([softmax(view) for view in of_clip])
        np.testing.assert_allclose(views[clip].numpy(), expected, atol=1e-6)
        together = expected.mean(0) if view_mean == "probabilities" else softmax(of_clip.mean(0))
        np.testing.assert_allclose(mean[clip].numpy(), together, atol=1e-6)


def test_a_sure_view_outvotes_the_others_only_by_its_scores():
    """The two rules can name different classes, so a recipe has to say which."""
    logits = torch.tensor([[20.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    assert mean_over_views(logits, 1, "probabilities")[0].argmax() == 1
    assert mean_over_views(logits, 1, "logits")[0].argmax() == 0


def test_half_precision_is_averaged_in_single_precision():
    logits = torch.randn(6, 400, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(0))
    mean, views = mean_over_views(logits, 2, "probabilities")
    assert mean.dtype == views.dtype == torch.float32
    torch.testing.assert_close(mean.sum(1), torch.ones(2))
