"""Which settings a run has: typed, documented, checked when they are built.

A recipe (`cast_ray.recipes`) returns a complete `RunConfig`; the command line changes single fields of it. Every
contradiction that can be seen without data or a cluster is a `UserError` here, before anything is started.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import dacite

from cast_ray.checks import require, require_positive
from cast_ray.data.storage import joined
from cast_ray.errors import UserError
from cast_ray.models.named import spec_of, trains_experts
from cast_ray.settings.data import AudioConfig, AugmentConfig, DataConfig
from cast_ray.settings.network import ModelConfig, WeightsConfig
from cast_ray.settings.optimisation import BatchConfig, OptimConfig
from cast_ray.settings.scale import ScaleConfig, TestConfig
from cast_ray.settings.tracking import TrackingConfig

__all__ = [
    "AudioConfig",
    "AugmentConfig",
    "BatchConfig",
    "DataConfig",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "ScaleConfig",
    "TestConfig",
    "TrackingConfig",
    "WeightsConfig",
]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a training run, apart from the dataset itself."""

    name: str | None = None
    """Name of the run; the same name in the same storage continues it. None makes a new one from the time."""
    storage: str = "~/cast_ray_runs"
    """Folder or URI (s3://, gs://) for shards, checkpoints and reports; all nodes must reach it."""
    seed: int = 0
    """Seed of initialisation, order and augmentation."""
    log_every: int = 10
    """Optimiser updates between two progress lines."""
    validate_every: int = 1
    """Epochs between two validations; a checkpoint is written after each."""
    checkpoint_every: int | None = 200
    """Optimiser updates between two checkpoints; None: only after validation."""
    keep_checkpoints: int = 3
    """Checkpoints to keep: the best ones by validation, and the last."""
    checkpoint_retry_s: float = 600.0
    """Seconds in which a checkpoint that the storage does not take is tried again; training goes on meanwhile."""
    model: ModelConfig = field(default_factory=ModelConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    test: TestConfig = field(default_factory=TestConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        if self.scale.min_workers is None:
            self.batch.accumulation(self.scale.num_workers)
        else:
            parts = self.batch.micro_batches_per_step  # any number of workers will do, with some padding
            require(
                self.scale.num_workers <= parts,
                f"scale.num-workers is {self.scale.num_workers}, but a global batch has only {parts} micro batches; "
                "the other workers would have nothing to do: lower it, or --batch.micro-batch",
            )
        require_positive("log-every", self.log_every)
        require_positive("validate-every", self.validate_every)
        require_positive("keep-checkpoints", self.keep_checkpoints)
        require_positive("checkpoint-retry-s", self.checkpoint_retry_s)
        if self.checkpoint_every is not None:
            require_positive("checkpoint-every", self.checkpoint_every)
        if self.name is not None:
            require(
                bool(self.name) and "/" not in self.name and not self.name.startswith("."),
                f"name is '{self.name}'; use a plain folder name",
            )

    @property
    def folder(self) -> str:
        """Path or URI of the run; it needs a name."""
        return joined(self.storage, str(self.name))

    @property
    def predictors(self) -> int:
        """Model replicas of the evaluation."""
        if self.test.num_workers is not None:
            return self.test.num_workers
        # On cores, replicas that take all of them would leave none for decoding; on GPUs, those that fit do the work.
        elastic = None if self.scale.use_gpu else self.scale.min_workers
        return elastic or self.scale.num_workers

    def check_experts(self) -> None:
        """Raise `UserError` if weights are given for an expert that the model does not have, or if frozen experts would
        stay untrained without the user having asked for it."""
        experts = spec_of(self.model).experts
        given = self.weights.given()
        for expert in given:
            require(
                expert in experts,
                f"weights.{expert} is '{given[expert]}', but {self.model.name} has the experts {list(experts)}; "
                f"leave --weights.{expert} away",
            )
        for expert in experts:
            require(
                expert in given or self.weights.network is not None or trains_experts(self.model),
                f"weights.{expert} is not given and the experts are frozen: an untrained expert would stay untrained. "
                f"Give --weights.{expert} FILE, or train it (--model.train-experts True), or say "
                f"--weights.{expert} random for a test of the machinery",
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, as they are stored beside every checkpoint."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """What `to_dict` returned, as a configuration again."""
        try:
            return dacite.from_dict(cls, values, dacite.Config(cast=[tuple], strict=True))
        except dacite.DaciteError as error:
            raise UserError(
                f"the stored configuration does not fit this version: {error}; use the run's version"
            ) from error
