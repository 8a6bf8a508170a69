"""How NAME=VALUE flags are read."""

from __future__ import annotations

from collections.abc import Sequence

from cast_ray.errors import UserError

__all__ = ["pairs"]


def pairs(flag: str, given: Sequence[str]) -> dict[str, str]:
    """Name -> value; a word without a name or a value, or a name that comes twice, is a `UserError`."""
    found: dict[str, str] = {}
    for word in given:
        name, _, value = word.partition("=")
        if not name or not value:
            raise UserError(f"--{flag} has '{word}'; give NAME=VALUE")
        if name in found:
            raise UserError(f"--{flag} has {name} twice: '{found[name]}' and '{value}'; leave one of them away")
        found[name] = value
    return found
