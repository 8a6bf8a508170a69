"""Where a number of a plan is from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ASSUMED", "COUNTED", "Known"]

ASSUMED = "assumed"
COUNTED = "counted from the model"


@dataclass(frozen=True, kw_only=True)
class Known:
    """A number and its origin, which is shown with every plan."""

    value: float
    origin: str
    """measured here (and by which command), from FILE, stated by the vendor, published, given by a flag, or assumed."""
