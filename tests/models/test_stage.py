"""The exchanges of one block, every variant, against a literal version: one clip, one patch, one head at a time.

The literal version is written from the papers' formulas (CAST, arXiv 2311.18825, equations 7 and 8 and tables 1b, 1c,
1e, 3) with loops, in double precision; it shares nothing with the package but the names of the parameters.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from cast_ray.errors import UserError
from cast_ray.models.exchange import Side
from cast_ray.models.experts.expert import TokenLayout
from cast_ray.models.spec import Direction, ExchangeSpec
from cast_ray.models.stage import Context, ExchangeStage

STEPS, GRID, SOUND = 3, (2, 2), (2, 3)
EVERYWHERE = ("time", "space", "space_time")
TALK = ("temporal", "spatial", "time"), ("spatial", "temporal", "space")
"""CAST's directions: source, target, window."""
SOUND_AND_SPACE = ("audio", "spatial", "space_time"), ("spatial", "audio", "space_time")
SOUND_AND_TIME = ("audio", "temporal", "space_time"), ("temporal", "audio", "space_time")


def sides(spatial=16, temporal=16, audio=16):
    """Heads have four channels."""
    return {
        "spatial": Side(layout=TokenLayout(steps=STEPS, special=1, grid=GRID, width=spatial), num_heads=spatial // 4),
        "temporal": Side(
            layout=TokenLayout(steps=STEPS, special=0, grid=GRID, width=temporal), num_heads=temporal // 4
        ),
        "audio": Side(layout=TokenLayout(steps=1, special=2, grid=SOUND, width=audio), num_heads=audio // 4),
    }


def exchange(*directions, **options):
    made = tuple(Direction(source=source, target=target, window=window) for source, target, window in directions)
    return ExchangeSpec(directions=made, **options)


class LiteralStage:
    """What the exchanges of a block do to the tokens of a clip."""

    def __init__(self, stage, exchanges, sides, *, shared=False, merge="sum"):
        self.p = stage.state_dict()
        self.exchanges = exchanges
        self.sides = sides
        self.merge = merge
        self.pairs = len(exchanges) > 1 and not shared

    def linear(self, x, name):
        return torch.einsum("oi,...i->...o", self.p[f"{name}.weight"], x) + self.p[f"{name}.bias"]

    def norm(self, x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]

    @staticmethod
    def gelu(x):
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))

    def placed(self, x, name, t, n, learned):
        """A token with its positions along the axes of the window."""
        tables = [self.p[f"{name}.{axis}"][i] for axis, i in (("time", t), ("space", n)) if f"{name}.{axis}" in self.p]
        assert bool(tables) == learned
        return x + sum(tables, torch.zeros_like(x))

    def attend(self, target, source, direction, heads, learned):
        """[T, N, R] patches that ask and [T', M, R'] patches that answer."""
        name = f"attention.{direction.source}_to_{direction.target}"
        answers = torch.empty_like(target)
        part = target.shape[-1] // heads
        for t, n in itertools.product(*map(range, target.shape[:2])):
            query = self.linear(self.placed(target[t, n], f"{name}.target_positions", t, n, learned), f"{name}.query")
            keys, values = [], []
            for u, m in itertools.product(*map(range, source.shape[:2])):
                if {"time": n == m, "space": t == u, "space_time": True}[direction.window]:
                    token = self.placed(source[u, m], f"{name}.source_positions", u, m, learned)
                    key_value = self.linear(token, f"{name}.key_value")
                    keys.append(key_value[: len(query)])
                    values.append(key_value[len(query) :])
            by_head = []
            for start in range(0, len(query), part):
                own = slice(start, start + part)
                scores = torch.stack([query[own] @ key[own] for key in keys]) / math.sqrt(part)
                weights = scores.exp() / scores.exp().sum()
                by_head.append(sum(w * value[own] for w, value in zip(weights, values, strict=True)))
            answers[t, n] = self.linear(torch.cat(by_head), f"{name}.project")
        return answers

    def update(self, spec, direction, tokens, clock):
        """What one direction adds to the [T, S + N, D] tokens of its target."""
        source, target = direction.source, direction.target
        (_, out), special = self.names(spec, target), self.sides[target].layout.special
        reduced = {}
        for name in (source, target):
            reduce, _ = self.names(spec, name)
            if spec.kind == "bottleneck":
                reduced[name] = self.norm(self.linear(tokens[name], f"{reduce}.linear"), f"{reduce}.norm")
            else:
                reduced[name] = tokens[name] if spec.kind == "lateral" else self.norm(tokens[name], reduce)
        patches = {name: x[:, self.sides[name].layout.special :] for name, x in reduced.items()}
        if spec.positions == "clock":
            patches = {name: x + clock[name] for name, x in patches.items()}
        bypass = reduced[target][:, :special]
        if spec.kind == "lateral":
            answers = self.linear(patches[source], f"attention.{source}_to_{target}.project")
        else:
            narrow = [min(source, target, key=lambda name: self.sides[name].layout.width)]
            heads = self.sides[narrow[0] if spec.kind == "bottleneck" else target].num_heads
            learned = spec.positions == "learned"
            answers = self.attend(patches[target], patches[source], direction, heads, learned)
        if spec.kind == "bottleneck":
            return self.linear(self.gelu(torch.cat([bypass, answers], 1)), out)
        if spec.kind == "attention_adapter":
            hidden = self.gelu(self.linear(torch.cat([bypass, answers], 1), f"{out}.reduce"))
            return self.linear(hidden, f"{out}.expand")
        nothing = torch.zeros(len(answers), special, answers.shape[-1], dtype=answers.dtype)
        return torch.cat([nothing, answers], 1)

    def names(self, spec, name):
        (other,) = {x for d in spec.directions for x in (d.source, d.target)} - {name}
        key = f"{name}_with_{other}" if self.pairs else name
        return f"reduce.{key}", f"expand.{key}"

    def clip(self, before, absent, clock):
        after, read = dict(before), before
        updates = {name: [] for name in before}
        for spec in self.exchanges:
            if self.merge == "sequence":
                updates, read = {name: [] for name in before}, dict(after)
            for direction in spec.directions:
                if direction.source not in absent:
                    updates[direction.target].append(self.update(spec, direction, read, clock))
            if self.merge == "sequence":
                after = {name: x + sum(updates[name]) for name, x in after.items()}
        if self.merge == "sequence":
            return after
        share = {name: 1 / max(1, len(given)) if self.merge == "average" else 1 for name, given in updates.items()}
        return {name: x + share[name] * sum(updates[name]) for name, x in before.items()}


def build(exchanges, given, randomise, *, shared=False, merge="sum", drop_path=0.0):
    stage = ExchangeStage(
        exchanges, sides=given, shared=shared, long_names=len(exchanges) > 1, merge=merge, drop_path=drop_path
    )
    return randomise(stage).double().eval()


def random_tokens(given, batch=2):
    torch.manual_seed(1)
    return {
        name: torch.randn(
            batch, x.layout.steps, x.layout.special + x.layout.patches, x.layout.width, dtype=torch.double
        )
        for name, x in given.items()
    }


def compare(exchanges, given, randomise, *, present=None, clock=None, **options):
    stage = build(exchanges, given, randomise, **options)
    before = random_tokens(given)
    context = Context(present={} if present is None else {"audio": torch.tensor(present)}, clock=clock or {})
    after = stage(before, context)
    literal = LiteralStage(stage, exchanges, given, **options)
    for clip in range(2):
        own_clock = {name: x.expand(2, -1, -1, -1)[clip] for name, x in (clock or {}).items()}
        absent = {"audio"} if present is not None and not present[clip] else set()
        expected = literal.clip({name: x[clip] for name, x in before.items()}, absent, own_clock)
        for name in before:
            torch.testing.assert_close(after[name][clip], expected[name], rtol=1e-9, atol=1e-9)
    heard = {direction.target for spec in exchanges for direction in spec.directions}
    moved = {name for name in before if not torch.equal(after[name], before[name])}
    assert moved == heard


@pytest.mark.parametrize(("to_spatial", "to_temporal"), [*itertools.product(EVERYWHERE, EVERYWHERE)])
def test_bottleneck_with_every_pair_of_windows(to_spatial, to_temporal, randomise):
    both = exchange(("temporal", "spatial", to_spatial), ("spatial", "temporal", to_temporal))
    compare([both], sides(), randomise)


@pytest.mark.parametrize("window", EVERYWHERE)
@pytest.mark.parametrize("direction", [("temporal", "spatial"), ("spatial", "temporal")])
@pytest.mark.parametrize("kind", ["bottleneck", "attention", "attention_adapter"])
def test_one_way(direction, window, kind, randomise):
    compare([exchange((*direction, window), kind=kind)], sides(), randomise)


@pytest.mark.parametrize("kind", ["attention", "attention_adapter", "lateral"])
@pytest.mark.parametrize("positions", ["learned", "none"])
def test_alternatives_to_the_bottleneck(kind, positions, randomise):
    compare([exchange(*TALK, kind=kind, positions=positions)], sides(), randomise)


@pytest.mark.parametrize("ratio", [1, 4])
def test_bottleneck_without_positions_at_other_ratios(ratio, randomise):
    compare([exchange(*TALK, positions="none", down_ratio=ratio)], sides(), randomise)


@pytest.mark.parametrize("kind", ["bottleneck", "attention", "attention_adapter", "lateral"])
@pytest.mark.parametrize("widths", [{"spatial": 8}, {"temporal": 8}], ids=str)
def test_experts_of_different_width(kind, widths, randomise):
    compare([exchange(*TALK, kind=kind)], sides(**widths), randomise)


@pytest.mark.parametrize("kind", ["bottleneck", "attention", "attention_adapter"])
def test_sound_and_sight_in_one_window(kind, randomise):
    compare([exchange(*SOUND_AND_SPACE, kind=kind)], sides(), randomise)


@pytest.mark.parametrize("merge", ["sum", "average", "sequence"])
@pytest.mark.parametrize("shared", [False, True], ids=["own projections", "shared projections"])
@pytest.mark.parametrize("present", [None, [True, False]], ids=["sound", "one silent clip"])
def test_three_exchanges_in_one_block(merge, shared, present, randomise):
    three = [exchange(*TALK), exchange(*SOUND_AND_SPACE), exchange(*SOUND_AND_TIME)]
    compare(three, sides(), randomise, merge=merge, shared=shared, present=present)


def test_three_exchanges_of_experts_of_three_widths(randomise):
    three = [exchange(*TALK), exchange(*SOUND_AND_SPACE), exchange(*SOUND_AND_TIME)]
    compare(three, sides(spatial=8, audio=32), randomise)


def test_seconds_take_the_place_of_tables(randomise):
    torch.manual_seed(2)
    clock = {
        "spatial": torch.randn(2, STEPS, 1, 8, dtype=torch.double),
        "temporal": torch.randn(2, STEPS, 1, 8, dtype=torch.double),
        "audio": torch.randn(2, 1, 6, 8, dtype=torch.double),
    }
    timed = [exchange(*SOUND_AND_SPACE, positions="clock"), exchange(*SOUND_AND_TIME, positions="clock")]
    compare([exchange(*TALK), *timed], sides(), randomise, clock=clock)


def test_a_silent_clip_alone_with_sound_hears_nothing(randomise):
    stage = build([exchange(*SOUND_AND_SPACE)], sides(), randomise)
    before = random_tokens(sides())
    after = stage(before, Context(present={"audio": torch.tensor([True, False])}))
    assert torch.equal(after["spatial"][1], before["spatial"][1])
    assert not torch.equal(after["spatial"][0], before["spatial"][0])


@pytest.mark.parametrize("kind", ["bottleneck", "attention", "attention_adapter", "lateral"])
def test_a_fresh_stage_changes_nothing(kind):
    fresh = ExchangeStage(
        [exchange(*TALK, kind=kind)], sides=sides(), shared=False, long_names=False, merge="sum", drop_path=0.0
    ).double()
    before = random_tokens(sides())
    after = fresh(before, Context())
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_tables_of_positions_start_at_the_scale_of_a_head():
    """Normal with deviation 32 ** -0.5 for the heads of 32 channels in CAST's code."""
    layout = TokenLayout(steps=16, special=0, grid=(14, 14), width=768)
    wide = dict.fromkeys(("spatial", "temporal"), Side(layout=layout, num_heads=12))
    stage = ExchangeStage([exchange(*TALK)], sides=wide, shared=False, long_names=False, merge="sum", drop_path=0.0)
    tables = [values for name, values in stage.named_parameters() if "_positions." in name]
    assert len(tables) == 4
    assert all(table.std().item() == pytest.approx(32**-0.5, rel=0.1) for table in tables)


@pytest.mark.parametrize("kind", ["bottleneck", "attention", "attention_adapter", "lateral"])
def test_special_tokens_do_not_hear_the_source(kind, randomise):
    stage, before = build([exchange(*TALK, kind=kind)], sides(), randomise), random_tokens(sides())
    other = {**before, "temporal": torch.randn_like(before["temporal"])}
    first, second = stage(before, Context())["spatial"], stage(other, Context())["spatial"]
    assert torch.equal(first[:, :, 0], second[:, :, 0])
    assert not torch.allclose(first[:, :, 1:], second[:, :, 1:])
    # They pass the ways in and out where there is a way out.
    assert torch.equal(first[:, :, 0], before["spatial"][:, :, 0]) == (kind in ("attention", "lateral"))


def test_drop_path_drops_the_update_of_whole_clips(randomise):
    stage = build([exchange(*TALK)], sides(), randomise, drop_path=0.5)
    before = random_tokens(sides(), batch=64)
    kept = stage(before, Context())["spatial"] - before["spatial"]
    torch.manual_seed(3)
    change = stage.train()(before, Context())["spatial"] - before["spatial"]
    dropped = change.flatten(1).abs().amax(1) == 0
    assert 10 < dropped.sum() < 54
    torch.testing.assert_close(change[~dropped], 2 * kept[~dropped])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (exchange(("audio", "spatial", "space")), "audio_to_spatial attends within a time step.*1 steps.*space_time"),
        (exchange(("audio", "spatial", "time")), "audio_to_spatial attends within a location.*6 patches.*space_time"),
        (
            exchange(*SOUND_AND_SPACE, kind="lateral"),
            "audio_to_spatial adds within a time step.*3 and 1 steps.*another kind",
        ),
        (exchange(*TALK, down_ratio=3), r"width 16 / down_ratio 3 = 5\.33333 is not a multiple of 4"),
        (exchange(*TALK, down_ratio=8), "width 16 / down_ratio 8 = 2 is not a multiple of 4"),
    ],
    ids=["steps", "patches", "lateral", "ratio", "heads"],
)
def test_experts_that_cannot_talk_are_refused(spec, message, randomise):
    with pytest.raises(UserError, match=message):
        build([spec], sides(), randomise)


def test_shared_projections_need_one_width(randomise):
    three = [exchange(*TALK), exchange(*SOUND_AND_SPACE), exchange(*SOUND_AND_TIME)]
    with pytest.raises(UserError, match=r"shared.*temporal"):
        build(three, sides(spatial=8), randomise, shared=True)


def test_the_same_direction_twice_in_a_block_is_refused(randomise):
    with pytest.raises(UserError, match="temporal_to_spatial"):
        build([exchange(*TALK), exchange(TALK[0])], sides(), randomise)
