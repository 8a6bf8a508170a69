"""Which classes the embedded dataset has, and how verbs pair up under time reversal."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NOUNS", "SOUNDS", "VERBS", "Labels", "balanced_labels", "partner"]

VERBS = ("move-left", "move-right", "move-up", "move-down", "grow", "shrink")
"""Verbs in index order. Verbs `2a` and `2a + 1` are the two directions of axis `a` (x, y, size)."""

NOUNS = ("arrow", "disc", "corner", "comb", "key", "flag")
SOUNDS = ("tone", "sweep", "bursts", "clicks")


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """The three class indices of a clip."""

    verb: int
    noun: int
    sound: int


def partner(verb: int) -> int:
    """The verb that a clip of `verb` shows when its frames are played backwards."""
    return verb ^ 1


def balanced_labels(position: int) -> Labels:
    """Labels of the clip at `position` of an endless list in which the three classes are independent.

    Any 144 consecutive positions hold every combination once; shorter runs are as even as their length allows.
    """
    verb, block = position % len(VERBS), position // len(VERBS)
    noun, cycle = block % len(NOUNS), block // len(NOUNS)
    return Labels(verb=verb, noun=noun, sound=(verb + noun + cycle) % len(SOUNDS))
