"""Settings of a search: how values are drawn, how many trials there are, and which end early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cast_ray.checks import require, require_positive, require_share

__all__ = ["Method"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """How values are drawn, and what becomes of the worse trials."""

    search: Literal["tpe", "random"] = "tpe"
    """tpe: Optuna's, which learns from finished trials; random."""
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    """asha: the worse trials end early; pbt: they go on from the checkpoints of the better ones, with changed settings,
    and all first values are drawn at random; none: every trial runs to its end."""
    trials: int = 16
    """Trials to run; a grid in the space multiplies them."""
    grace_epochs: int = 2
    """With asha: epochs that every trial gets."""
    keep_one_of: int = 3
    """With asha: at each rung, one of so many trials goes on."""
    exploit_every: int = 2
    """With pbt: epochs between two turns, at which all trials wait for each other."""
    exploit_share: float = 0.25
    """With pbt: share of the trials that go on from others' checkpoints at a turn, at most half of them."""
    resample: float = 0.25
    """With pbt: probability that a setting is drawn anew then, instead of being multiplied by 0.8 or 1.2, or changed to
    the choice beside it."""
    max_concurrent: int | None = None
    """Trials at the same time; None: as many as the cluster has room for."""
    seed: int = 0
    """Of the search; the seed of training is the configuration's."""

    def __post_init__(self) -> None:
        require_positive("method.trials", self.trials)
        require_positive("method.grace-epochs", self.grace_epochs)
        require(self.keep_one_of > 1, f"method.keep-one-of is {self.keep_one_of}; give 2 or more")
        require_positive("method.exploit-every", self.exploit_every)
        require(
            0 < self.exploit_share <= 0.5,
            f"method.exploit-share is {self.exploit_share}; give 0 < share <= 0.5",
        )
        require_share("method.resample", self.resample)
        if self.max_concurrent is not None:
            require_positive("method.max-concurrent", self.max_concurrent)
