"""Settings of a search: how values are drawn, how many trials there are, and which end early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cast_ray.checks import require, require_positive

__all__ = ["Method"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """How values are drawn, and which trials are ended early."""

    search: Literal["tpe", "random"] = "tpe"
    """tpe: Optuna's, which learns from finished trials; random."""
    scheduler: Literal["asha", "none"] = "asha"
    """asha: the worse trials end early; none: every trial runs to its end."""
    trials: int = 16
    """Trials to run; a grid in the space multiplies them."""
    grace_epochs: int = 2
    """With asha: epochs that every trial gets."""
    keep_one_of: int = 3
    """With asha: at each rung, one of so many trials goes on."""
    max_concurrent: int | None = None
    """Trials at the same time; None: as many as the cluster has room for."""
    seed: int = 0
    """Of the search; the seed of training is the configuration's."""

    def __post_init__(self) -> None:
        require_positive("method.trials", self.trials)
        require_positive("method.grace-epochs", self.grace_epochs)
        require(self.keep_one_of > 1, f"method.keep-one-of is {self.keep_one_of}; give 2 or more")
        if self.max_concurrent is not None:
            require_positive("method.max-concurrent", self.max_concurrent)
