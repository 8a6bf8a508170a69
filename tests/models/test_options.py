"""What options make of a named model, and how impossible ones are answered."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cast_ray.errors import UserError
from cast_ray.models.assemble import assemble
from cast_ray.models.named import EVA, NAMED
from cast_ray.models.options import ModelOptions, vary
from cast_ray.models.spec import (
    AST,
    AUDIO,
    CLIP,
    SPATIAL,
    TEMPORAL,
    AudioInput,
    Direction,
    ExchangeSpec,
    NetworkSpec,
    Shift,
    TimmViT,
    VideoInput,
    VideoMAE,
    ViT,
)

CAST, CAVA, CA2ST, MSCA = (NAMED[name] for name in ("cast_tiny", "cava_tiny", "ca2st_tiny", "msca_kv_tiny"))
COUNTS = {"verb": 3, "noun": 4}
OFF = {"to_spatial": "off", "to_temporal": "off"}


def test_no_option_changes_nothing():
    for spec in NAMED.values():
        assert vary(spec, ModelOptions()) == spec


@pytest.mark.parametrize(
    ("role", "name", "family"),
    [
        ("spatial", "clip", CLIP),
        ("spatial", "clip_gelu", CLIP),
        ("spatial", "videomae", VideoMAE),
        ("temporal", "mvd", VideoMAE),
        ("temporal", "vit", ViT),
        ("temporal", "clip", CLIP),
    ],
)
def test_the_expert_of_a_role_can_be_another(role, name, family):
    varied = vary(CAST, ModelOptions(**{role: name}))
    assert type(varied.experts[role]) is family
    other = {"spatial": TEMPORAL, "temporal": SPATIAL}[role]
    assert varied.experts[other] == CAST.experts[other]
    if family is CLIP:
        assert varied.experts[role].activation == {"clip": "quick_gelu", "clip_gelu": "gelu"}[name]
    assert (varied.experts[role].width, varied.experts[role].num_heads) == (64, 4)


def test_a_vit_of_timm_brings_its_own_sizes_and_keeps_the_choice_of_adapters():
    cast = vary(NAMED["cast_base_patch16_224"], ModelOptions(adapters=False))
    expert = vary(cast, ModelOptions(spatial="timm/vit_small_patch14_dinov2")).experts[SPATIAL]
    sizes = {"patch_size": 14, "width": 384, "depth": 12, "num_heads": 6}
    assert expert == TimmViT(model="vit_small_patch14_dinov2", adapters=False, **sizes)


def exchange_of(spec, *experts):
    (found,) = [exchange for exchange in spec.exchanges if set(exchange.experts) == set(experts)]
    return found


def test_options_of_the_visual_exchange_leave_those_with_sound_alone():
    options = ModelOptions(to_spatial="space", to_temporal="off", blocks=(2,), positions="none")
    varied = vary(CA2ST, options)
    visual = exchange_of(varied, SPATIAL, TEMPORAL)
    assert visual.directions == (Direction(source=TEMPORAL, target=SPATIAL, window="space"),)
    assert (visual.blocks, visual.positions) == ((2,), "none")
    assert varied.exchanges[1:] == CA2ST.exchanges[1:]
    assert varied.experts == CA2ST.experts


def test_options_of_sound_leave_the_visual_exchange_alone():
    varied = vary(CA2ST, ModelOptions(audio_blocks=(3,), audio_positions="clock", audio_frames=200, mel_bins=64))
    assert varied.exchanges[0] == CA2ST.exchanges[0]
    for exchange in varied.exchanges[1:]:
        assert (exchange.blocks, exchange.positions) == ((3,), "clock")
    assert varied.audio == AudioInput(mel_bins=64, frames=200)


def test_options_of_all_exchanges_reach_all():
    varied = vary(CA2ST, ModelOptions(down_ratio=4, merge="average", shared_projections=True))
    assert {exchange.down_ratio for exchange in varied.exchanges} == {4}
    assert (varied.merge, varied.shared_projections) == ("average", True)
    attention = vary(CA2ST, ModelOptions(exchange="attention"))
    assert {exchange.kind for exchange in attention.exchanges} == {"attention"}
    assert vary(CA2ST, ModelOptions(exchange="none")).exchanges == ()


def test_sizes_reach_all_experts():
    sizes = {"patch_size": 16, "width": 48, "depth": 2, "num_heads": 3, "mlp_ratio": 2}
    varied = vary(CA2ST, ModelOptions(**sizes, adapters=False))
    for expert in varied.experts.values():
        assert {name: getattr(expert, name) for name in sizes} == sizes
        assert not expert.adapters
    network = assemble(varied, COUNTS)
    assert network.get_parameter("experts.spatial.blocks.1.mlp.fc1.weight").shape == (96, 48)


def test_options_of_shifts_reach_the_shift():
    options = ModelOptions(
        shift_of="k", shift_axis="patch", shift_ratio=0.125, shift_class_token=True, shift_pattern="interleaved"
    )
    shift = vary(MSCA, replace(options, shift_boundary="keep")).experts[SPATIAL].shift
    assert shift == Shift(of="k", axis="patch", ratio=0.125, class_token=True, pattern="interleaved", boundary="keep")


@pytest.mark.parametrize("name", ["msca_kv_tiny", "tokenshift_tiny", "framewise_tiny"])
def test_a_vit_in_the_place_of_a_vit_shifts_as_that_did(name):
    assert vary(NAMED[name], ModelOptions(spatial="vit")).experts == NAMED[name].experts


def test_an_expert_that_does_not_shift_can_be_another():
    assert type(vary(NAMED["framewise_tiny"], ModelOptions(spatial="clip")).experts[SPATIAL]) is CLIP


def test_lateral_connections_can_go_one_way():
    (lateral,) = vary(CAST, ModelOptions(exchange="lateral", to_spatial="off")).exchanges
    assert [direction.target for direction in lateral.directions] == [TEMPORAL]


def test_the_bottleneck_of_exchanges_with_sound_varies_where_the_visual_one_is_off():
    varied = vary(CA2ST, ModelOptions(**OFF, down_ratio=4))
    assert [exchange.down_ratio for exchange in varied.exchanges] == [4, 4]


@pytest.mark.parametrize(("fusion", "joined"), [("add", "sum"), ("concat", "concat")])
def test_late_fusion_reads_every_field_from_all_experts(fusion, joined):
    head = vary(CAST, ModelOptions(fusion=fusion)).head
    assert (head.fields, head.adapters, head.fusion) == ({}, "no", joined)


@pytest.mark.parametrize("both", [{"exchange": "none"}, OFF])
def test_no_direction_left_is_no_exchange(both):
    assert vary(CAST, ModelOptions(**both)).exchanges == ()


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("audio_tiny", {"spatial": "clip"}, "spatial given, but the model does not have a spatial expert"),
        ("cava_tiny", {"temporal": "clip"}, "temporal given, but the model does not have a temporal expert"),
        ("cast_tiny", {"audio_frames": 200, "mel_bins": 64}, "audio_frames, mel_bins given.*audio expert"),
        ("cast_tiny", {"audio_positions": "clock"}, "audio_positions given.*exchange with an audio expert"),
        ("cava_tiny", {"to_spatial": "off"}, "to_spatial given.*spatial and temporal expert"),
        ("cava_tiny", {"blocks": (1,)}, "blocks given"),
        ("cast_tiny", {"merge": "average"}, "merge given.*several exchanges"),
        ("cast_tiny", {"shared_projections": True}, "shared_projections given.*several exchanges"),
        ("spatial_tiny", {"exchange": "lateral"}, "exchange given.*any exchange"),
        ("spatial_tiny", {"down_ratio": 4}, "down_ratio given"),
        ("cast_tiny_lateral", {"down_ratio": 4}, "down_ratio given.*bottleneck"),
        ("cast_tiny", {"exchange": "attention", "down_ratio": 4}, "down_ratio given.*bottleneck"),
        ("cast_tiny", {"exchange": "lateral", "positions": "none"}, "positions given.*with positions"),
        ("cast_tiny", {"exchange": "none", "blocks": (1,)}, "blocks given.*any more"),
        ("ca2st_tiny", {"exchange": "none", "merge": "sum"}, "merge given.*any more"),
        ("cava_tiny", {"split_clock": False}, "split_clock given.*positions from the clock"),
        ("framewise_tiny", {"shift_of": "k"}, "shift_of given.*a shift"),
        ("cast_tiny", {"shift_ratio": 0.1}, "shift_ratio given.*a shift"),
        ("cast_tiny", {"exchange": "lateral", "to_spatial": "space"}, "to_spatial given.*with windows"),
        ("cast_tiny_lateral", {"to_temporal": "space_time"}, "to_temporal given.*with windows"),
        ("cast_tiny_to_temporal_only", {"to_spatial": "space"}, "to_spatial given.*exchange to the spatial expert"),
        ("cast_tiny", {**OFF, "positions": "none", "blocks": (1,)}, "blocks, positions given.*any more"),
        ("ca2st_tiny", {**OFF, "blocks": (1,)}, "blocks given.*any more"),
        ("cast_tiny", {**OFF, "down_ratio": 4}, "down_ratio given.*any more"),
        ("cast_tiny", {**OFF, "exchange": "lateral"}, "exchange given.*any more"),
        ("spatial_tiny", {"fusion": "add"}, "fusion given.*several experts"),
        ("cast_tiny_eva", {"mlp_ratio": 2}, "mlp_ratio given.*timm expert"),
        ("cast_base_patch16_224", {"spatial": f"timm/{EVA}", "mlp_ratio": 2}, "mlp_ratio given.*timm expert"),
        ("msca_kv_tiny", {"spatial": "clip"}, "spatial expert shifts in time, which 'clip' cannot"),
        ("tokenshift_tiny", {"spatial": "timm/vit_tiny_patch16_224"}, "shifts in time, which 'timm/vit_tiny_patch"),
        ("tokenshift_tiny", {"shift_axis": "patch"}, "patch axis"),
        ("msca_kv_tiny", {"shift_pattern": "interleaved"}, "patch axis only"),
        ("msca_kv_tiny", {"shift_class_token": True}, "patch axis only"),
    ],
)
def test_an_option_for_what_the_model_does_not_have_is_refused(spec, options, message):
    with pytest.raises(UserError, match=message):
        vary(NAMED[spec], ModelOptions(**options))


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("cast_tiny", {"width": 62}, "width 62 is not a multiple of num_heads 4"),
        ("cast_tiny", {"depth": 0}, "depth is 0"),
        ("cast_tiny", {"num_heads": -1}, "num_heads is -1"),
        ("cast_tiny", {"width": "64"}, "width is '64'"),
        ("cast_tiny", {"depth": True}, "depth is True"),
        ("cast_tiny", {"down_ratio": 0}, "down_ratio is 0"),
        ("cast_tiny", {"down_ratio": -2}, "down_ratio is -2"),
        ("cast_tiny", {"down_ratio": 3}, r"down_ratio 3 = 21\.3333 is not a multiple of 4"),
        ("cast_tiny", {"down_ratio": 32}, "down_ratio 32 = 2 is not a multiple of 4"),
        ("cast_tiny", {"blocks": (0, 3, 4)}, r"blocks \[0, 4\].*blocks 1 to 3"),
        ("cast_tiny", {"spatial": "resnet"}, "no expert 'resnet'; use one of.*'clip'"),
        ("cast_tiny", {"spatial": "timm/vit_nonsense"}, "timm has no model 'vit_nonsense'"),
        ("cast_tiny", {"spatial": "timm/resnet18"}, "resnet18.*plain.*ViT"),
        ("cast_tiny", {"spatial": "timm/swin_tiny_patch4_window7_224"}, "swin_tiny.*plain.*ViT"),
        ("cast_tiny", {"patch_size": 5}, "image size 32 is not a multiple of patch size 5"),
        ("cast_tiny_independent", {"width": 62, "num_heads": 2}, "width is 62; adapters need a multiple of 4"),
        ("cast_tiny", {"spatial": "timm/vit_tiny_patch16_224"}, "depths.*equal depth"),
        ("cava_tiny", {"audio_frames": 0}, "frames is 0"),
        ("cava_tiny", {"audio_frames": 10}, "128 bins x 10 columns has no patch of 16"),
        ("cava_tiny", {"exchange": "lateral"}, "use another kind of exchange"),
        ("cava_tiny", {"exchange": "attention", "audio_positions": "clock"}, "bottleneck exchanges of one width"),
        ("msca_kv_tiny", {"shift_ratio": 0.6}, r"ratio is 0\.6"),
        ("msca_kv_tiny", {"shift_ratio": 0.2}, r"a share of 0\.2 of 4 heads is less than one"),
        ("cast_tiny", {"blocks": ()}, "blocks names no block.*use exchange none"),
        ("cava_tiny", {"audio_blocks": ()}, "audio_blocks names no block.*use exchange none"),
    ],
)
def test_values_that_cannot_be_built_are_explained(spec, options, message):
    with pytest.raises(UserError, match=message):
        assemble(vary(NAMED[spec], ModelOptions(**options)), COUNTS)


WORDS = ("exchange", "to_spatial", "to_temporal", "positions", "fusion", "audio_positions", "merge")
WORDS += ("shift_of", "shift_axis", "shift_pattern", "shift_boundary")


@pytest.mark.parametrize("name", WORDS)
@given(word=st.text(max_size=12).map(lambda text: text + "?"))
@settings(max_examples=20, deadline=None)
def test_a_word_outside_the_choice_is_answered_with_the_choice(name, word):
    with pytest.raises(UserError, match=re.escape(f"{name} is {word!r}; use one of [")):
        ModelOptions(**{name: word})


def built(**options):
    """The network, or None for a `UserError`; any other error is one of the test's."""
    try:
        return assemble(vary(CAST, ModelOptions(**options)), COUNTS)
    except UserError:
        return None


@given(width=st.integers(-4, 96), num_heads=st.integers(-1, 8), down_ratio=st.integers(-2, 9), depth=st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_every_combination_of_sizes_is_built_or_explained(width, num_heads, down_ratio, depth):
    fits = min(width, num_heads, down_ratio, depth) > 0 and width % 4 == 0 and width % num_heads == 0
    fits = fits and width % down_ratio == 0 and width // down_ratio % num_heads == 0
    network = built(width=width, num_heads=num_heads, down_ratio=down_ratio, depth=depth)
    assert (network is not None) == fits
    if network is not None:
        assert network.depth == depth
        assert network.exchanges[0].reduce["spatial"].linear.weight.shape == (width // down_ratio, width)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VideoInput(num_frames=7), "num_frames 7 is not a multiple of frames_per_step 2"),
        (lambda: VideoInput(image_size=0), "image_size is 0"),
        (lambda: AudioInput(mel_bins=-1), "mel_bins is -1"),
        (lambda: AST(stride=16).grid(AudioInput(frames=9)), "no patch of 16"),
        (lambda: CLIP(activation="relu"), "activation is 'relu'"),
        (lambda: VideoMAE(positions="axes", width=72), "width 72 is not a multiple of .* 16"),
        (lambda: Shift(of="x"), "of is 'x'"),
        (lambda: Direction(source=AUDIO, target=SPATIAL, window="all"), "window is 'all'"),
        (lambda: ExchangeSpec(directions=(), kind="bus"), "kind is 'bus'"),
        (lambda: replace(CAST, merge="max"), "merge is 'max'"),
        (lambda: replace(CAST, drop_path_rate=1.0), r"drop_path_rate is 1\.0"),
        (lambda: replace(CAST, drop_path_rate=float("nan")), "drop_path_rate is nan"),
        (lambda: replace(CAST, exchanges=CAVA.exchanges), r"exchanges name \['audio'\].*'temporal'"),
        (lambda: NetworkSpec(experts={SPATIAL: CLIP(depth=2), TEMPORAL: VideoMAE(depth=3)}), "'temporal': 3"),
        (lambda: NetworkSpec(experts={}), "depths"),
        (lambda: assemble(CAST, {}), "num_classes is {}"),
        (lambda: assemble(CAST, {"verb": 0}), "num_classes is {'verb': 0}"),
    ],
    ids=lambda value: inspect.getsource(value).strip()[:60] if callable(value) else "",
)
def test_specifications_that_make_no_sense_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("cast_tiny", {"video"}),
        ("audio_tiny", {"audio", "has_audio"}),
        ("cava_tiny", {"video", "audio", "has_audio"}),
        ("ca2st_tiny_clock", {"video", "audio", "has_audio", "video_times", "audio_times"}),
        ("msca_kv_tiny", {"video"}),
    ],
)
def test_a_network_says_which_inputs_it_needs(name, needs):
    assert NAMED[name].needs == needs


def test_a_silent_network_with_seconds_needs_no_seconds_of_sound():
    timed = replace(CAST.exchanges[0], positions="clock")
    assert replace(CAST, exchanges=(timed,)).needs == {"video", "video_times"}
