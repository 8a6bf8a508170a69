"""What an exchange may and may not change. Its arithmetic is compared with a literal version in test_verify.py."""

from __future__ import annotations

import pytest
import torch

from cast_ray.models.attention import SPACE, SPACE_TIME, TIME
from cast_ray.models.exchange import BottleneckExchange, Exchange
from cast_ray.models.experts.expert import TokenLayout

LAYOUTS = {
    "spatial": TokenLayout(steps=3, special=1, patches=4),
    "temporal": TokenLayout(steps=3, special=0, patches=4),
    "audio": TokenLayout(steps=1, special=2, patches=6),
}
TO_SPATIAL = Exchange(source="temporal", target="spatial", window=TIME)
TO_TEMPORAL = Exchange(source="spatial", target="temporal", window=SPACE)


def build(*exchanges, drop_path=0.0):
    torch.manual_seed(0)
    module = BottleneckExchange(exchanges, layouts=LAYOUTS, width=16, down_ratio=2, num_heads=2, drop_path=drop_path)
    for linear in module.expand.values():
        torch.nn.init.normal_(linear.weight)
    return module


def tokens(batch=2):
    torch.manual_seed(1)
    return {
        name: torch.randn(batch, layout.steps, layout.special + layout.patches, 16) for name, layout in LAYOUTS.items()
    }


def test_fresh_exchange_changes_nothing():
    module = BottleneckExchange(
        (TO_SPATIAL, TO_TEMPORAL), layouts=LAYOUTS, width=16, down_ratio=2, num_heads=2, drop_path=0.0
    )
    before = tokens()
    after = module(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_both_directions_read_the_same_inputs():
    """Together they give what each gives alone: neither sees the other's result."""
    both, before = build(TO_SPATIAL, TO_TEMPORAL), tokens()
    after = both(before)
    for exchange in (TO_SPATIAL, TO_TEMPORAL):
        alone = build(exchange)
        alone.load_state_dict({k: v for k, v in both.state_dict().items() if k in alone.state_dict()})
        torch.testing.assert_close(alone(before)[exchange.target], after[exchange.target])


def test_special_tokens_do_not_see_the_source():
    module, before = build(TO_SPATIAL), tokens()
    other = {**before, "temporal": torch.randn_like(before["temporal"])}
    first, second = module(before)["spatial"], module(other)["spatial"]
    assert torch.equal(first[:, :, 0], second[:, :, 0])
    assert not torch.equal(first[:, :, 0], before["spatial"][:, :, 0])
    assert not torch.allclose(first[:, :, 1:], second[:, :, 1:])


@pytest.mark.parametrize(
    ("exchange", "seen"),
    [(TO_SPATIAL, lambda t, n: n == 2), (TO_TEMPORAL, lambda t, n: t == 1)],
    ids=["time", "space"],
)
def test_a_source_patch_reaches_only_its_window(exchange, seen):
    module, before = build(exchange), tokens()
    special = {name: LAYOUTS[name].special for name in LAYOUTS}
    changed = before[exchange.source].clone()
    changed[:, 1, special[exchange.source] + 2] += 1.0
    difference = module(before)[exchange.target] - module({**before, exchange.source: changed})[exchange.target]
    reached = difference[:, :, special[exchange.target] :].abs().amax((0, 3)) > 0
    assert reached.tolist() == [[seen(t, n) for n in range(4)] for t in range(3)]


def test_joint_window_lets_grids_of_different_size_talk():
    module = build(Exchange(source="audio", target="spatial", window=SPACE_TIME))
    before = tokens()
    assert module(before)["spatial"].shape == before["spatial"].shape


def test_window_over_unequal_grids_is_refused():
    with pytest.raises(ValueError, match="audio_to_spatial"):
        build(Exchange(source="audio", target="spatial", window=SPACE))


def test_drop_path_drops_the_update_of_whole_clips():
    module, before = build(TO_SPATIAL, drop_path=0.5).train(), tokens(batch=64)
    change = (module(before)["spatial"] - before["spatial"]).flatten(1).abs()
    dropped = change.amax(1) == 0
    assert 10 < dropped.sum() < 54
    kept = build(TO_SPATIAL)(before)["spatial"] - before["spatial"]
    torch.testing.assert_close(change[~dropped], 2 * kept.flatten(1).abs()[~dropped], rtol=1e-3, atol=1e-4)
