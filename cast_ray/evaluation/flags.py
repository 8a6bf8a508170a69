"""Which settings of a trained model's use the jobs let the user change."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cast_ray.checks import require_positive
from cast_ray.evaluation.parts import CLIPS_PER_PART
from cast_ray.weights.moved import MovedWeights

if TYPE_CHECKING:
    from cast_ray.evaluation.trained import TrainedModel

__all__ = ["ModelFlags"]


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Flags of the jobs that predict; None: as in the configuration of the training."""

    num_workers: int | None = None
    """Model replicas that predict in parallel; a run's as many as it had workers, an exported file's one."""
    use_gpu: bool | None = None
    """Predict on GPUs, one per replica, or on CPU cores; exported files: CPU cores."""
    cpus_per_worker: float | None = None
    """CPU cores that Ray sets aside for one replica without a GPU."""
    precision: Literal["bf16", "fp16", "float32"] | None = None
    """Number format of the forward pass."""
    clips_per_batch: int | None = None
    """Clips, with all their views, per forward pass."""
    temporal_views: int | None = None
    """Views along time."""
    spatial_crops: Literal[1, 3] | None = None
    """Views along the longer side of the frame: the centre, or left / centre / right."""
    clips_per_part: int = CLIPS_PER_PART
    """Clips in one file of predictions; what is killed does the clips of incomplete files again."""
    weights: MovedWeights = field(default_factory=MovedWeights)

    def __post_init__(self) -> None:
        require_positive("clips-per-part", self.clips_per_part)

    def applied(self, model: TrainedModel, *, max_unreadable: float | None = None) -> TrainedModel:
        """The model with what is given; `UserError` for a value that its configuration refuses."""
        test = self._given("num_workers", "clips_per_batch", "temporal_views", "spatial_crops")
        scale = self._given("use_gpu", "cpus_per_worker", "precision")
        if self.precision is not None:  # no optimiser here whose stage would have to suit the format
            scale["zero_stage"] = max(1, model.config.scale.zero_stage)
        data: dict[str, Any] = {} if max_unreadable is None else {"max_unreadable": max_unreadable}
        config = model.config
        return model.used(
            dataclasses.replace(
                config,
                test=dataclasses.replace(config.test, **test),
                scale=dataclasses.replace(config.scale, **scale),
                data=dataclasses.replace(config.data, **data),
            )
        )

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}
