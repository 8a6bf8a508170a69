"""MSCA and TokenShift against literal loops, and the algebraic identities that tie MSCA's variants together.

MSCA: Hashiguchi and Tamaki, ACCV 2022 workshops; the identities follow from its definition. TokenShift: arXiv
2108.02432. Double precision throughout.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cast_ray.errors import UserError
from cast_ray.labels import LABEL
from cast_ray.models.assemble import assemble
from cast_ray.models.attention import SPACE
from cast_ray.models.experts.block import SelfAttention
from cast_ray.models.experts.shift import ProjectionShift, TokenShift
from cast_ray.models.named import NAMED
from cast_ray.models.spec import Shift

FRAMES, PATCHES, HEADS, PART = 5, 9, 6, 4
TOKENS, WIDTH = 1 + PATCHES, HEADS * PART
OF = ("q", "k", "v", "qk", "qv", "kv", "qkv")
INSIDE = slice(1, FRAMES - 1)


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(2, FRAMES, TOKENS, WIDTH, dtype=torch.double)


@pytest.fixture
def weights(randomise):
    """Projections of one attention layer whose output projection changes nothing, so that heads can be told apart."""
    layer = randomise(SelfAttention(WIDTH, HEADS, window=SPACE, key_bias=True)).double()
    torch.nn.init.eye_(layer.project.weight)
    torch.nn.init.zeros_(layer.project.bias)
    return layer.state_dict()


def run(weights, x, shift):
    """Outputs of all heads [B, T, N, H, D / H]."""
    moved = None if shift is None else ProjectionShift(shift, num_heads=HEADS, patches=PATCHES)
    layer = SelfAttention(WIDTH, HEADS, window=SPACE, key_bias=True, shift=moved).double()
    layer.load_state_dict(weights)
    return layer(x).unflatten(-1, (HEADS, PART))


def run_reversed(weights, x, shift):
    """The same with the order of the heads reversed before the shift and restored after it: +1 and -1 swapped."""
    turned = dict(weights)
    for kind in ("weight", "bias"):
        by_head = weights[f"qkv.{kind}"].unflatten(0, (3, HEADS, PART))
        turned[f"qkv.{kind}"] = by_head.flip(1).flatten(0, 2)
    return run(turned, x, shift).flip(3)


def projected(weights, x):
    """Queries, keys and values, each [B, T, N, H, D / H]."""
    qkv = torch.einsum("btnd,ed->btne", x, weights["qkv.weight"]) + weights["qkv.bias"]
    return [part.unflatten(-1, (HEADS, PART)) for part in qkv.chunk(3, -1)]


def literal(weights, x, of, came_from, *, keep=False):
    """One frame, one head at a time; `came_from(token, head)` is the frame offset of what is shifted."""
    q, k, v = projected(weights, x)
    out = torch.empty_like(q)

    def taken(name, values, t, head):
        rows = []
        for token in range(TOKENS):
            source = t + (came_from(token, head) if name in of else 0)
            missing = not 0 <= source < FRAMES
            row = values[:, t if missing else source, token, head]
            rows.append(row if not missing or keep else torch.zeros_like(row))
        return torch.stack(rows, 1)

    for t in range(FRAMES):
        for head in range(HEADS):
            query, key, value = (taken(name, values, t, head) for name, values in (("q", q), ("k", k), ("v", v)))
            scores = torch.einsum("bid,bjd->bij", query, key) / PART**0.5
            out[:, t, :, head] = torch.einsum("bij,bjd->bid", scores.softmax(-1), value)
    return out


def by_head(fold):
    return lambda token, head: 1 if head < fold else -1 if head >= HEADS - fold else 0


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("boundary", ["zero", "keep"])
def test_heads_look_at_the_frames_that_the_paper_says(of, boundary, weights, x):
    for fold in (1, 2, 3):
        shift = Shift(of=of, ratio=fold / HEADS, boundary=boundary)
        expected = literal(weights, x, of, by_head(fold), keep=boundary == "keep")
        torch.testing.assert_close(run(weights, x, shift), expected)


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("pattern", ["blocks", "interleaved"])
@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("boundary", ["zero", "keep"])
def test_patches_come_from_the_frames_that_the_options_say(of, pattern, class_token, boundary, weights, x):
    """Two of nine patches from the next frame and two from the previous one, for all heads."""
    ahead, back = {"blocks": ((0, 1), (7, 8)), "interleaved": ((0, 4), (2, 6))}[pattern]

    def came_from(token, _):
        if token == 0:
            return int(class_token)
        return (token - 1 in ahead) - (token - 1 in back)

    shift = Shift(of=of, axis="patch", ratio=2 / 9, pattern=pattern, class_token=class_token, boundary=boundary)
    expected = literal(weights, x, of, came_from, keep=boundary == "keep")
    torch.testing.assert_close(run(weights, x, shift), expected)


@pytest.mark.parametrize(
    ("one", "other"),
    [("q", "kv"), ("qk", "v"), ("qv", "k"), ("qkv", None)],
    ids=["Q = shifted KV", "QK = shifted V", "QV = shifted K", "QKV = shifted self-attention"],
)
def test_variants_are_shifts_of_each_other(one, other, weights, x):
    """X^(d) at frame t is Y^(-d) at frame t + d, on every frame whose neighbours exist."""
    fold = 2
    left = run(weights, x, Shift(of=one, ratio=fold / HEADS))
    right = run(weights, x, None) if other is None else run_reversed(weights, x, Shift(of=other, ratio=fold / HEADS))
    for heads, offset in ((slice(fold), 1), (slice(HEADS - fold, HEADS), -1)):
        neighbour = right.roll(-offset, 1)
        torch.testing.assert_close(left[:, INSIDE, :, heads], neighbour[:, INSIDE, :, heads])


def test_qkv_is_shifted_self_attention_on_every_frame(weights, x):
    left, plain = run(weights, x, Shift(of="qkv", ratio=1 / HEADS)), run(weights, x, None)
    nothing = torch.zeros_like(plain[:, :1, :, 0])
    torch.testing.assert_close(left[..., 0, :], torch.cat([plain[:, 1:, :, 0], nothing], 1))
    torch.testing.assert_close(left[..., -1, :], torch.cat([nothing, plain[:, :-1, :, -1]], 1))


@pytest.mark.parametrize("of", OF)
def test_missing_neighbours_give_zero_or_the_mean_of_the_values(of, weights, x):
    out = run(weights, x, Shift(of=of, ratio=1 / HEADS))
    mean = projected(weights, x)[2].mean(2, keepdim=True).expand(-1, -1, TOKENS, -1, -1)
    for frame, head in ((FRAMES - 1, 0), (0, HEADS - 1)):
        expected = torch.zeros_like(mean) if "v" in of else mean
        torch.testing.assert_close(out[:, frame, :, head], expected[:, frame, :, head])


@pytest.mark.parametrize("of", OF)
def test_inner_heads_are_plain_self_attention(of, weights, x):
    out, plain = run(weights, x, Shift(of=of, ratio=2 / HEADS)), run(weights, x, None)
    assert torch.equal(out[..., 2:-2, :], plain[..., 2:-2, :])
    assert not torch.allclose(out[..., :2, :], plain[..., :2, :])


@pytest.mark.parametrize("axis", ["head", "patch"])
@pytest.mark.parametrize("of", OF)
def test_one_layer_reaches_one_frame_each_way(of, axis, weights, x):
    shift = Shift(of=of, axis=axis, ratio=2 / HEADS)
    changed = x.clone()
    changed[:, 2] += torch.randn_like(changed[:, 2])
    difference = (run(weights, x, shift) - run(weights, changed, shift)).abs().amax((0, 2, 3, 4))
    assert (difference > 0).tolist() == [False, True, True, True, False]


@pytest.mark.parametrize("of", OF)
def test_time_and_heads_reversed_together_reverse_the_result(of, weights, x):
    shift = Shift(of=of, ratio=2 / HEADS)
    torch.testing.assert_close(run_reversed(weights, x.flip(1), shift).flip(1), run(weights, x, shift))


@pytest.mark.parametrize("of", OF)
def test_patches_in_another_order_give_the_same_in_that_order_if_heads_shift(of, weights, x):
    order = torch.randperm(TOKENS)
    shift = Shift(of=of, ratio=2 / HEADS)
    torch.testing.assert_close(run(weights, x[:, :, order], shift), run(weights, x, shift)[:, :, order])


@pytest.mark.parametrize("axis", ["head", "patch"])
def test_a_share_of_0_is_plain_self_attention(axis, weights, x):
    assert torch.equal(run(weights, x, Shift(axis=axis, ratio=0.0, class_token=False)), run(weights, x, None))


@pytest.mark.parametrize(
    ("heads", "patches", "axis", "count"), [(12, 196, "head", 1), (16, 196, "head", 1), (12, 196, "patch", 16)]
)
def test_the_released_share_is_a_twelfth_each_way(heads, patches, axis, count):
    assert ProjectionShift(Shift(axis=axis), num_heads=heads, patches=patches).count == count


def test_a_single_frame_has_no_neighbours(weights, x):
    out = run(weights, x[:, :1], Shift(ratio=1 / HEADS))
    assert not out[..., 0, :].any()
    assert not out[..., -1, :].any()
    torch.testing.assert_close(out[..., 1:-1, :], run(weights, x[:, :1], None)[..., 1:-1, :])
    assert torch.equal(run(weights, x[:, :1], Shift(ratio=0.5, boundary="keep")), run(weights, x[:, :1], None))


@pytest.mark.parametrize("boundary", ["zero", "keep"])
@pytest.mark.parametrize(("ratio", "fold"), [(None, WIDTH // 4), (0.125, 3), (0.5, WIDTH // 2), (0.0, 0)])
def test_token_shift_moves_channels_of_the_class_token_only(ratio, fold, boundary, x):
    expected = x.clone()
    for t in range(FRAMES):
        for channels, source in ((slice(fold), t + 1), (slice(fold, 2 * fold), t - 1)):
            if 0 <= source < FRAMES:
                expected[:, t, 0, channels] = x[:, source, 0, channels]
            elif boundary == "zero":
                expected[:, t, 0, channels] = 0
    assert torch.equal(TokenShift(Shift(of="token", ratio=ratio, boundary=boundary), width=WIDTH)(x), expected)


SPEC = NAMED["framewise_tiny"]


def network(randomise, shift=None, frames=8):
    spec = replace(SPEC, video=replace(SPEC.video, num_frames=frames))
    spec = replace(spec, experts={"spatial": replace(SPEC.experts["spatial"], shift=shift)})
    return randomise(assemble(spec, {LABEL: 5})).double().eval()


@pytest.fixture
def clip():
    torch.manual_seed(1)
    return torch.randn(2, *SPEC.video.shape, dtype=torch.double)


@pytest.mark.parametrize(
    ("shift", "invariant"),
    [
        (None, True),
        (Shift(ratio=0.25), False),
        (Shift(axis="patch", ratio=0.25), False),
        (Shift(of="token"), False),
        (Shift(ratio=0.0), True),
        (Shift(of="token", ratio=0.0), True),
    ],
    ids=["frame-wise", "MSCA", "MSCA patches", "TokenShift", "MSCA of no head", "TokenShift of no channel"],
)
def test_only_shifts_see_the_order_of_frames(shift, invariant, randomise, clip):
    model = network(randomise, shift)
    shuffled = clip[:, :, [3, 0, 5, 1, 7, 2, 6, 4]]
    assert torch.allclose(model(shuffled)[LABEL], model(clip)[LABEL], rtol=1e-9) == invariant
    assert torch.allclose(model(clip)[LABEL], network(randomise)(clip)[LABEL], rtol=1e-9) == invariant


def test_logits_are_the_mean_of_those_of_single_frames(randomise, clip):
    alone = network(randomise, frames=1)
    expected = torch.stack([alone(clip[:, :, t : t + 1])[LABEL] for t in range(8)]).mean(0)
    torch.testing.assert_close(network(randomise)(clip)[LABEL], expected)


@pytest.mark.parametrize("shift", [Shift(ratio=0.25), Shift(of="token")], ids=["MSCA", "TokenShift"])
def test_logits_with_a_shift_are_the_mean_over_frames_of_classified_class_tokens(shift, randomise, clip):
    model = network(randomise, shift)
    expert = model.experts["spatial"]
    tokens = expert.embed(clip)
    for block in expert.blocks:
        tokens = block(tokens)
    logits = [model.head.classify[LABEL](expert.norm(tokens[:, t, 0])) for t in range(8)]
    torch.testing.assert_close(model(clip)[LABEL], torch.stack(logits).mean(0))


def test_token_shift_acts_on_the_trunk_before_both_halves_of_every_block(randomise, clip):
    """The skip connection carries shifted values too, twice per block."""
    expert = network(randomise, Shift(of="token")).experts["spatial"]
    shift, block, x = TokenShift(Shift(of="token"), width=64), expert.blocks[1], expert.embed(clip)
    y = shift(x)
    y = y + block.attention(block.attention_norm(y))
    z = shift(y)
    z = z + block.mlp(block.mlp_norm(z))
    torch.testing.assert_close(block(x), z)


def test_classifiers_start_at_zero():
    assert not assemble(NAMED["msca_kv_tiny"], {LABEL: 3})(torch.randn(1, *SPEC.video.shape))[LABEL].any()


@pytest.mark.parametrize("ratio", [-0.1, 0.6, float("nan")])
def test_a_share_that_cannot_be_taken_twice_is_refused(ratio):
    with pytest.raises(UserError, match=f"ratio is {ratio}"):
        Shift(ratio=ratio)


@pytest.mark.parametrize("ratio", [None, 0.08])
@pytest.mark.parametrize(("axis", "heads", "patches"), [("head", 8, 196), ("patch", 12, 9)])
def test_a_share_of_less_than_one_is_refused_and_a_share_of_0_is_not(axis, heads, patches, ratio):
    with pytest.raises(UserError, match=rf"a share of 0\.08.* of \d+ {axis}s is less than one.*shift_ratio, or 0"):
        ProjectionShift(Shift(axis=axis, ratio=ratio), num_heads=heads, patches=patches)
    assert ProjectionShift(Shift(axis=axis, ratio=0.0), num_heads=heads, patches=patches).count == 0


def test_a_share_of_less_than_one_channel_is_refused():
    with pytest.raises(UserError, match=r"a share of 0\.04 of 24 channels is less than one"):
        TokenShift(Shift(of="token", ratio=0.04), width=WIDTH)
