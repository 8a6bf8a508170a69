"""What one copy of a trained network makes of a block of clips: their probabilities."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cast_ray.data.inputs import InputMaker, in_precision
from cast_ray.data.loader import MEDIA_COLUMNS
from cast_ray.errors import UserError
from cast_ray.evaluation.parts import VALID, Columns
from cast_ray.evaluation.trained import TrainedModel
from cast_ray.evaluation.view_mean import mean_over_views
from cast_ray.models.named import spec_of

__all__ = ["Replica", "compute_dtype"]


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format of the forward pass: that of training, but float32 instead of fp16 on CPUs, which are slow at
    it and lack some operations."""
    if precision == "bf16":
        return torch.bfloat16
    return torch.float16 if precision == "fp16" and device.type == "cuda" else torch.float32


class Replica:
    """One copy of the network on a device; turns blocks of clips into blocks of probabilities."""

    def __init__(self, model: TrainedModel, *, views: bool = False) -> None:
        """`views`: keep the probabilities of each view too.

        Raises:
            UserError: the weights cannot be loaded, or are not those of the model.
        """
        config = model.config
        self._device = torch.device("cuda" if config.scale.use_gpu else "cpu")
        self._dtype = compute_dtype(config.scale.precision, self._device)
        if not config.scale.use_gpu:
            torch.set_num_threads(max(1, int(config.scale.cpus_per_worker)))
        self._view_mean, self._views = config.test.view_mean, views
        self._inputs = InputMaker(spec_of(config.model), self._device)
        self._network = model.load(config).to(self._device, self._dtype)

    def __call__(self, batch: Columns) -> dict[str, NDArray]:
        """Columns of clips as their loader gives them, media with V views.

        Returns:
            The columns without the media, and per label field `probabilities_<field>` [B, classes]; with `views` also
            `view_probabilities_<field>` [B, V, classes]. Those of clips that are not valid mean nothing.

        Raises:
            UserError: a clip's scores are not finite.
        """
        with torch.inference_mode():
            logits = self._network(in_precision(self._inputs.evaluation(batch), self._dtype))
        result = {name: column for name, column in batch.items() if name not in MEDIA_COLUMNS}
        clips = len(batch["clip_id"])
        for field, scores in logits.items():
            mean, views = mean_over_views(scores, clips, self._view_mean)
            result[f"probabilities_{field}"] = mean.cpu().numpy()
            result["num_views"] = np.full(clips, views.shape[1], np.int32)
            if self._views:
                result[f"view_probabilities_{field}"] = views.cpu().numpy()
            self._check_finite(field, result)
        return result

    def _check_finite(self, field: str, result: Columns) -> None:
        wrong = ~np.isfinite(result[f"probabilities_{field}"]).all(axis=1) & result[VALID].astype(bool)
        for row in np.flatnonzero(wrong)[:1]:
            raise UserError(
                f"the {field} scores of clip '{result['clip_id'][row]}' are not finite in {self._dtype}; the training "
                "diverged, or the format is too narrow: evaluate another checkpoint, or with --precision float32"
            )
