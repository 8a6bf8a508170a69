"""Which models have a name, what they cost and what they eat: for the terminal, and for programs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any

from rich import box
from rich.table import Table

from cast_ray.errors import UserError
from cast_ray.labels import LABEL, NOUN, VERB
from cast_ray.models.costs import Costs, count_costs, input_shapes
from cast_ray.models.named import NAMED
from cast_ray.models.spec import AUDIO, AUDIO_TIMES, VIDEO, NetworkSpec

__all__ = ["FAMILIES", "LEGEND", "WIDTH", "Entry", "class_counts", "entries", "matching", "tables"]

FAMILIES = {
    "cast": "CAST: spatial and temporal expert, and the ablations of its paper",
    "spatial": "single experts",
    "temporal": "single experts",
    "audio": "single experts",
    "cava": "CAVA: audio and spatial expert",
    "ca2st": "CA2ST: audio, spatial and temporal expert",
    "framewise": "MSCA, TokenShift and the frame-wise ViT that both start from",
    "tokenshift": "MSCA, TokenShift and the frame-wise ViT that both start from",
    "msca": "MSCA, TokenShift and the frame-wise ViT that both start from",
}
"""Family by the first word of a model's name."""

WIDTH = 100
"""Columns that the widest table needs."""

LEGEND = """params, trained: millions; trained is what changes while experts are frozen, or all where none has adapters
GMAC: billions of multiply-adds of one view
video: frames x pixels; sound: mel bins x columns of 10 ms; +times: and when they happened, in seconds"""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One named model."""

    name: str
    spec: NetworkSpec
    costs: Costs

    @property
    def family(self) -> str:
        return _family(self.name)

    def to_dict(self) -> dict[str, Any]:
        """Everything that the table shows, exact and with names."""
        return {
            "name": self.name,
            "family": self.family,
            "parameters": self.costs.parameters,
            "trainable_parameters": self.costs.trainable_parameters,
            "trains_experts": self.spec.trains_whole,
            "multiply_adds_per_view": self.costs.multiply_adds,
            "inputs": {name: list(shape) for name, shape in input_shapes(self.spec).items()},
        }


def class_counts(classes: Sequence[int]) -> dict[str, int]:
    """Classes by label field: one number for one label, two for verb and noun.

    Raises:
        UserError: there are neither one nor two numbers, or one is not positive.
    """
    fields = {1: (LABEL,), 2: (VERB, NOUN)}.get(len(classes))
    if fields is None or min(classes) < 1:
        raise UserError(
            f"--classes is {' '.join(map(str, classes))}; give one positive number (one label), or two (verbs, nouns)"
        )
    return dict(zip(fields, classes, strict=True))


def matching(patterns: Sequence[str]) -> tuple[str, ...]:
    """Names of the models that match any of the patterns (* and ? as in a shell), families together; all if none given.

    Raises:
        UserError: a pattern matches nothing.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in NAMED):
            near = difflib.get_close_matches(pattern, NAMED, n=3, cutoff=0.4)
            suggestion = f"; did you mean {' or '.join(near)}?" if near else "; `cast-ray models` lists them all"
            raise UserError(f"no model matches '{pattern}'{suggestion}")
    names = [name for name in NAMED if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)]
    order = list(dict.fromkeys(FAMILIES.values()))
    return tuple(sorted(names, key=lambda name: order.index(_family(name))))


def entries(names: Sequence[str], num_classes: Mapping[str, int]) -> Iterator[Entry]:
    """The models of these names, each counted when it is asked for (a tenth of a second)."""
    for name in names:
        yield Entry(name=name, spec=NAMED[name], costs=count_costs(NAMED[name], num_classes))


def tables(listed: Sequence[Entry]) -> Iterator[tuple[str, Table]]:
    """Title and table of each family, at most `WIDTH` columns wide; `LEGEND` explains the headings."""
    for family, group in groupby(listed, key=lambda entry: entry.family):
        members = list(group)
        columns = {
            "video": [_video(entry.spec) for entry in members],
            "sound": [_sound(entry.spec) for entry in members],
        }
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("model", no_wrap=True)
        for heading in ("params", "trained", "GMAC"):
            table.add_column(heading, justify="right", no_wrap=True)
        shown = {heading: cells for heading, cells in columns.items() if any(cells)}
        for heading in shown:
            table.add_column(heading, no_wrap=True)
        for entry, *inputs in zip(members, *shown.values(), strict=True):
            costs = entry.costs
            figures = (costs.parameters / 1e6, costs.trainable_parameters / 1e6, costs.multiply_adds / 1e9)
            table.add_row(entry.name, *map(_figure, figures), *inputs)
        yield family, table


def _family(name: str) -> str:
    return FAMILIES[name.partition("_")[0]]


def _figure(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def _video(spec: NetworkSpec) -> str:
    return f"{spec.video.num_frames}x{spec.video.image_size}" if VIDEO in spec.needs else ""


def _sound(spec: NetworkSpec) -> str:
    times = " +times" if AUDIO_TIMES in spec.needs else ""
    return f"{spec.audio.mel_bins}x{spec.audio.frames}{times}" if AUDIO in spec.needs else ""
