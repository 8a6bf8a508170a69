"""Settings of an update: its batch, the optimiser, the schedule."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from cast_ray.checks import require, require_positive, require_share
from cast_ray.errors import UserError

__all__ = ["BatchConfig", "OptimConfig"]


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How many clips make one optimiser update."""

    global_batch: int = 384
    """Clips per update: micro batch x accumulation x workers."""
    micro_batch: int = 6
    """Clips per worker and forward pass."""

    def __post_init__(self) -> None:
        require_positive("batch.global-batch", self.global_batch)
        require_positive("batch.micro-batch", self.micro_batch)

    @property
    def micro_batches_per_step(self) -> int:
        """Forward passes per update over all workers; `UserError` unless the micro batch divides the global one."""
        if self.global_batch % self.micro_batch:
            raise UserError(
                f"batch.global-batch {self.global_batch} does not divide by batch.micro-batch {self.micro_batch}; "
                "change one of them"
            )
        return self.global_batch // self.micro_batch

    def accumulation(self, num_workers: int) -> int:
        """Forward passes per update of each worker; `UserError` unless the batches divide evenly."""
        per_pass = self.micro_batch * num_workers
        if self.global_batch % per_pass:
            lower = self.global_batch // per_pass * per_pass
            near = " or ".join(str(size) for size in (lower, lower + per_pass) if size)
            raise UserError(
                f"batch.global-batch {self.global_batch} does not divide by batch.micro-batch {self.micro_batch} x "
                f"{num_workers} workers = {per_pass}; use --batch.global-batch {near}, or another micro batch"
            )
        return self.global_batch // per_pass


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser, its schedule and its regularisation."""

    epochs: int = 50
    """Passes over the training split."""
    base_lr: float = 1e-3
    """Learning rate for 256 clips per update; the peak is base_lr x global batch / 256."""
    min_lr: float = 1e-6
    """Last learning rate of the cosine for 256 clips per update, scaled in the same way."""
    warmup_epochs: float = 5.0
    """Epochs of linear warm-up from 0."""
    schedule: Literal["cosine", "steps"] = "cosine"
    """After the warm-up: fall along a cosine, or stay and drop at `drop_epochs`."""
    drop_epochs: tuple[int, ...] = ()
    """With schedule steps: epochs that must be over for the next drop."""
    drop_factor: float = 0.1
    """With schedule steps: factor on the learning rate at every drop."""
    kind: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or stochastic gradient descent with momentum."""
    layer_decay: float = 0.75
    """Factor on the learning rate per block, counted from the last block down; 1 switches it off."""
    weight_decay: float = 0.05
    """Decoupled weight decay of matrices; biases, norms and positions have none."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's two moments."""
    momentum: float = 0.9
    """Decay rate of the momentum of sgd."""
    label_smoothing: float = 0.1
    """Share of the target spread evenly over all classes."""
    clip_grad: float = 0.0
    """Largest L2 norm of the gradient; 0 switches clipping off."""
    ema_decay: float = 0.0
    """Decay rate per update of a moving average of the weights, for example 0.9999, which is then what is validated,
    tested and exported; 0 keeps none."""
    on_bad_loss: Literal["stop", "skip"] = "stop"
    """What to do when a loss is not finite: stop the run, or leave the micro batch out and go on."""

    def __post_init__(self) -> None:
        require_positive("optim.epochs", self.epochs)
        require_positive("optim.base-lr", self.base_lr)
        require(
            0 <= self.min_lr <= self.base_lr, f"optim.min-lr {self.min_lr} is not between 0 and base-lr {self.base_lr}"
        )
        require(
            0 <= self.warmup_epochs <= self.epochs,
            f"optim.warmup-epochs {self.warmup_epochs} is more than optim.epochs {self.epochs}; lower it",
        )
        require(0 < self.layer_decay <= 1, f"optim.layer-decay is {self.layer_decay}; give 0 < decay <= 1")
        require(all(0 <= beta < 1 for beta in self.betas), f"optim.betas are {self.betas}; give two numbers in [0, 1)")
        require(0 <= self.momentum < 1, f"optim.momentum is {self.momentum}; give 0 <= momentum < 1")
        require(0 < self.drop_factor < 1, f"optim.drop-factor is {self.drop_factor}; give 0 < factor < 1")
        drops = self.drop_epochs
        require(
            all(before < after for before, after in itertools.pairwise((0, *drops))),
            f"optim.drop-epochs are {drops}; give growing numbers from 1",
        )
        require(
            self.schedule != "steps" or bool(drops),
            "optim.schedule is steps, but there are no steps; give --optim.drop-epochs, or --optim.schedule cosine",
        )
        require_share("optim.label-smoothing", self.label_smoothing)
        require(self.weight_decay >= 0, f"optim.weight-decay is {self.weight_decay}; give 0 or more")
        require(self.clip_grad >= 0, f"optim.clip-grad is {self.clip_grad}; give 0 or more")
        require(0 <= self.ema_decay < 1, f"optim.ema-decay is {self.ema_decay}; give 0 <= decay < 1")

    def peak_lr(self, global_batch: int) -> float:
        return self.base_lr * global_batch / 256

    def last_lr(self, global_batch: int) -> float:
        return self.min_lr * global_batch / 256
