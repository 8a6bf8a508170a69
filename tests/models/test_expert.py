"""What every expert promises to a network: tokens in its layout, a feature, adapters, and what of it is tuned."""

from __future__ import annotations

import math

import pytest
import torch

from cast_ray.models.assemble import assemble
from cast_ray.models.experts.videomae import axes_table, sine_cosine_table
from cast_ray.models.spec import (
    AST,
    CLIP,
    AudioInput,
    HeadSpec,
    NetworkSpec,
    Shift,
    TimmViT,
    VideoInput,
    VideoMAE,
    ViT,
)

SIZE = {"patch_size": 8, "width": 32, "depth": 2, "num_heads": 4}
VIDEO, SOUND = VideoInput(image_size=32, num_frames=6, frames_per_step=2), AudioInput(mel_bins=40, frames=60)
SPECS = {
    "CLIP": CLIP(**SIZE),
    "VideoMAE": VideoMAE(**SIZE),
    "MVD": VideoMAE(**SIZE, positions="axes"),
    "ViT": ViT(**SIZE),
    "MSCA": ViT(**SIZE, shift=Shift(ratio=0.25)),
    "AST": AST(**SIZE),
    "timm": TimmViT(**SIZE, model="vit_small_patch14_reg4_dinov2"),
    "EVA": TimmViT(**SIZE, model="eva02_base_patch16_clip_224"),
}
TOKENS = {"AST": (1, 2, (4, 6)), "VideoMAE": (3, 0, (4, 4)), "MVD": (3, 0, (4, 4)), "timm": (3, 5, (4, 4))}
"""Steps, special tokens and grid; the others have one special token in each of three steps."""


@pytest.fixture(params=SPECS)
def family(request):
    return request.param


@pytest.fixture
def expert(family, randomise):
    spec = NetworkSpec(experts={"one": SPECS[family]}, head=HeadSpec(adapters="no"), video=VIDEO, audio=SOUND)
    return randomise(assemble(spec, {"label": 2})).eval().experts["one"]


def example(expert, batch=3):
    torch.manual_seed(0)
    return torch.randn(batch, *expert.input_shape)


def test_tokens_have_the_shape_that_the_layout_promises(family, expert):
    steps, special, grid = TOKENS.get(family, (3, 1, (4, 4)))
    layout = expert.layout
    assert (layout.steps, layout.special, layout.grid, layout.width) == (steps, special, grid, 32)
    assert expert.embedding.grid == grid
    x = example(expert)
    assert expert.embed(x).shape == (3, steps, special + grid[0] * grid[1], 32)
    assert expert(x).shape == (3, 32)
    assert expert.spec == SPECS[family]


def test_a_clip_does_not_see_its_neighbours_in_the_batch(expert):
    x = example(expert)
    torch.testing.assert_close(expert(x)[1:2], expert(x[1:2]))


def test_another_shape_is_refused(expert):
    shape = (1, *expert.input_shape[:-1], expert.input_shape[-1] + 8)
    with pytest.raises(ValueError, match=r"has shape \(1, .*the model takes \[B, "):
        expert.embed(torch.zeros(shape))


def test_an_adapter_that_has_learnt_nothing_changes_nothing_and_one_that_has_does(expert):
    x = example(expert)
    for block in expert.blocks:
        for adapter in (block.attention_adapter, block.mlp_adapter):
            torch.nn.init.zeros_(adapter.expand.weight)
            torch.nn.init.zeros_(adapter.expand.bias)
    before = expert(x)
    for adapter in ("attention_adapter", "mlp_adapter"):
        getattr(expert.blocks[0], adapter).reduce.weight.data.mul_(2)
        assert torch.equal(expert(x), before)
        torch.nn.init.normal_(getattr(expert.blocks[0], adapter).expand.weight)
        after = expert(x)
        assert not torch.allclose(after, before)
        before = after


def test_a_block_is_attention_with_a_serial_and_feed_forward_with_a_parallel_adapter(expert):
    """CAST, arXiv 2311.18825, equations 1 to 5, and the 0.5 of its code."""
    block, x = expert.blocks[0], expert.embed(example(expert))

    def adapt(adapter, y):
        hidden = y @ adapter.reduce.weight.T + adapter.reduce.bias
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        return hidden @ adapter.expand.weight.T + adapter.expand.bias

    attended = block.attention(block.attention_norm(x))
    y = x + attended + adapt(block.attention_adapter, attended)
    torch.testing.assert_close(block.attend(x), y)
    normed = block.mlp_norm(y)
    torch.testing.assert_close(block(x), y + block.mlp(normed) + 0.5 * adapt(block.mlp_adapter, normed))


def test_adapters_and_the_final_norm_are_tuned(family, expert):
    tuned = set(expert.tuned_names())
    norm = {"norm.weight", "norm.bias"}
    adapters = {name for name, _ in expert.named_parameters() if "_adapter." in name}
    assert len(adapters) == 2 * 2 * 4
    assert tuned == adapters | (set() if family == "AST" else norm)


def test_drop_path_spares_the_frozen_branches(expert):
    """With adapters it drops the second one only; without, where all trains, whole branches."""
    block, x = expert.blocks[1], expert.embed(example(expert))
    block.train()
    block.drop_path.drop_prob = 1 - 1e-7
    dropped = block.attend(x)
    torch.testing.assert_close(dropped, block.eval().attend(x))
    plain = dropped + block.mlp(block.mlp_norm(dropped))
    torch.testing.assert_close(block.train().feed_forward(dropped), plain)
    block.attention_adapter = block.mlp_adapter = None
    assert torch.equal(block(x), block.trunk_shift(block.trunk_shift(x)))


def test_frames_that_are_not_looked_at_do_not_matter(family, expert):
    """Frame-wise experts see the last frame of every step, tubelets all of them."""
    if family == "AST":
        return
    x = example(expert)
    changed = x.clone()
    changed[:, :, ::2] = 0
    assert torch.equal(expert(changed), expert(x)) == (family not in ("VideoMAE", "MVD"))


def test_position_table_of_videomae_is_sine_and_cosine_in_turn():
    table = sine_cosine_table(7, 6)
    for position in range(7):
        for pair in range(3):
            angle = position / 10000 ** (2 * pair / 6)
            assert table[position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_position_table_of_mvd_codes_time_column_and_row():
    steps, side, width = 3, 4, 32
    table = axes_table(steps, side, width)
    assert table.shape == (steps, side * side, width)
    for t in range(steps):
        for row in range(side):
            for column in range(side):
                expected = []
                for place, channels in ((t, 8), (column, 12), (row, 12)):
                    angles = [place / 10000 ** (i / (channels // 2)) for i in range(channels // 2)]
                    expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
                assert table[t, row * side + column].tolist() == pytest.approx(expected, abs=1e-6)
