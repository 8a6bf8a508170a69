"""How a setting with an impossible value is refused."""

from __future__ import annotations

from cast_ray.errors import UserError

__all__ = ["require", "require_positive", "require_share"]


def require(condition: bool, message: str) -> None:
    """Raise `UserError` with the message unless the condition holds."""
    if not condition:
        raise UserError(message)


def require_share(name: str, value: float) -> None:
    """Raise `UserError` unless the setting is between 0 and 1."""
    require(0.0 <= value <= 1.0, f"{name} is {value}; give a share between 0 and 1")


def require_positive(name: str, value: float) -> None:
    """Raise `UserError` unless the setting is above 0."""
    require(value > 0, f"{name} is {value}; give a number above 0")
