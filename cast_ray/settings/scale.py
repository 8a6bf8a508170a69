"""Settings of the machinery: how many workers train and evaluate, and on what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cast_ray.checks import require, require_positive

__all__ = ["ScaleConfig", "TestConfig", "ViewMean"]

ViewMean = Literal["probabilities", "logits"]
"""What is averaged over a clip's views."""


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """How many workers run, on what."""

    num_workers: int = 16
    """Training processes; one per GPU."""
    min_workers: int | None = None
    """Workers with which the run goes on when machines are lost, until there are others; None: it waits for
    num_workers."""
    resize_every_s: float = 60.0
    """With min_workers: seconds between two looks whether there are machines for more workers. All workers then start
    anew from the latest checkpoint."""
    use_gpu: bool = True
    """Train on GPUs; False means CPU cores."""
    cpus_per_worker: float = 4.0
    """CPU cores that Ray sets aside for one training worker; leave the others to the decoders."""
    precision: Literal["bf16", "fp16", "float32"] = "bf16"
    """Number format of the forward and backward pass; fp16 has a dynamic loss scale, as in the papers. Master weights
    are float32 in any case."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage: 1 shards the optimiser state over the workers, 2 the gradients too, 3 the weights too."""
    offload_optimizer: bool = False
    """Keep the optimiser's state in the machine's memory and update the weights on its CPU: slow, frees GPU memory."""
    compile: bool = False
    """Compile the network with torch.compile: the first update takes minutes, the others less time."""
    max_failures: int = 3
    """Times that lost workers are replaced and the run goes on from its latest checkpoint, machines that go without
    notice among them; those that Ray announced beforehand do not count."""
    start_timeout_s: int = 900
    """Seconds to wait for the cluster to provide the workers. With min_workers, for those that it seems to have room
    for; it waits without end until there is room for min_workers."""
    hang_timeout_s: float = 600.0
    """Seconds without a sign of life after which a worker counts as hanging, and all workers start anew from the latest
    checkpoint. Until the first update is done, three times as long."""

    @property
    def resources_per_worker(self) -> dict[str, float]:
        """What Ray sets aside for one training worker, by Ray's names."""
        return {"CPU": self.cpus_per_worker} | ({"GPU": 1.0} if self.use_gpu else {})

    def __post_init__(self) -> None:
        require_positive("scale.num-workers", self.num_workers)
        require(
            self.min_workers is None or 1 <= self.min_workers <= self.num_workers,
            f"scale.min-workers is {self.min_workers}; give a number from 1 to scale.num-workers {self.num_workers}",
        )
        require_positive("scale.resize-every-s", self.resize_every_s)
        require_positive("scale.cpus-per-worker", self.cpus_per_worker)
        require_positive("scale.start-timeout-s", self.start_timeout_s)
        require_positive("scale.hang-timeout-s", self.hang_timeout_s)
        require(
            self.precision == "float32" or self.zero_stage > 0,
            f"scale.zero-stage 0 does not go with scale.precision {self.precision}; use --scale.zero-stage 1 or 2, or "
            "--scale.precision float32",
        )
        require(
            not self.offload_optimizer or self.zero_stage > 0,
            "scale.offload-optimizer does not go with scale.zero-stage 0; use --scale.zero-stage 1, 2 or 3",
        )
        require(self.max_failures >= 0, f"scale.max-failures is {self.max_failures}; give 0 or more")


@dataclass(frozen=True, kw_only=True)
class TestConfig:
    """Multi-view evaluation after training."""

    __test__ = False  # pytest: not a test class

    temporal_views: int = 2
    """Views along time."""
    spatial_crops: Literal[1, 3] = 3
    """Views along the longer side of the frame: the centre, or left / centre / right."""
    view_mean: ViewMean = "probabilities"
    """What is averaged over a clip's views: probabilities, as most do, or the scores before the softmax."""
    num_workers: int | None = None
    """Model replicas that predict in parallel; None: as many as there were training workers."""
    clips_per_batch: int = 4
    """Clips, with all their views, per forward pass."""

    def __post_init__(self) -> None:
        require_positive("test.temporal-views", self.temporal_views)
        if self.num_workers is not None:
            require_positive("test.num-workers", self.num_workers)
        require_positive("test.clips-per-batch", self.clips_per_batch)
