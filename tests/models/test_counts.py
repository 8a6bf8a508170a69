"""Numbers of parameters of the models at full size, against the papers and their code. Nothing is allocated.

Sources: CAST, arXiv 2311.18825, tables 1c, 1d, 1f, and what its code's shapes give; CA2ST and MSCA, their code.
"""

from __future__ import annotations

import pytest
import torch

from cast_ray.labels import LABEL, NOUN, VERB
from cast_ray.models.assemble import assemble
from cast_ray.models.named import NAMED
from cast_ray.models.options import ModelOptions, vary

EK100 = {VERB: 97, NOUN: 300}
CAST = "cast_base_patch16_224"
CAVA = "cava_base_patch16_224"
CA2ST = "ca2st_base_patch16_224"


def build(name, counts=None, **options):
    with torch.device("meta"):
        network = assemble(vary(NAMED[name], ModelOptions(**options)), EK100 if counts is None else counts)
    network.freeze()
    return network


def count(parameters):
    return sum(parameter.numel() for parameter in parameters)


def trainable(network):
    return count(p for p in network.parameters() if p.requires_grad)


def frozen(module):
    return count(p for p in module.parameters() if not p.requires_grad)


@pytest.mark.parametrize(
    ("counts", "trained", "total"),
    [
        (EK100, 44_784_781, 216_808_333),
        ({LABEL: 174}, 45_205_038, 217_228_590),
        ({LABEL: 400}, 45_378_832, 217_402_384),
    ],
    ids=["EPIC-KITCHENS-100", "Something-Something-V2", "Kinetics-400"],
)
def test_cast(counts, trained, total):
    network = build(CAST, counts)
    assert trainable(network) == trained
    assert count(network.parameters()) == total
    assert frozen(network.experts["spatial"]) == 85_797_888
    assert frozen(network.experts["temporal"]) == 86_225_664
    assert frozen(network) == 85_797_888 + 86_225_664


def test_parts_of_a_block_of_cast():
    network = build(CAST)
    block, stage = network.experts["spatial"].blocks[0], network.exchanges[0]
    assert count(block.attention_adapter.parameters()) == count(block.mlp_adapter.parameters()) == 295_872
    assert count(stage.parameters()) == 2_522_880
    assert count(stage.parameters()) + 4 * 295_872 == 3_706_368


@pytest.mark.parametrize(("ratio", "millions"), [(8, 19.44), (4, 26.12), (2, 44.78), (1, 103.35)])
def test_cast_by_down_ratio(ratio, millions):
    assert trainable(build(CAST, down_ratio=ratio)) == pytest.approx(millions * 1e6, abs=5e3)


@pytest.mark.parametrize(("last", "millions"), [(3, 22.08), (6, 29.65), (9, 37.22), (12, 44.78)])
def test_cast_by_number_of_last_blocks_with_exchanges(last, millions):
    network = build(CAST, blocks=tuple(range(13 - last, 13)))
    assert trainable(network) == pytest.approx(millions * 1e6, abs=5e3)
    if last < 12:
        assert trainable(build(f"{CAST}_last{last}")) == trainable(network)


def test_no_exchange_leaves_cast_its_adapters_norms_and_heads():
    """The paper's 18.1 million have a fifth adapter per block, which its code does not have."""
    network = build(f"{CAST}_independent")
    heads = 97 * 769 + 300 * 769
    assert trainable(network) == 12 * 4 * 295_872 + 2 * 1536 + heads == pytest.approx(14.51e6, abs=5e3)
    assert trainable(network) + 12 * 295_872 == pytest.approx(18.06e6, abs=5e3)


def test_an_adapter_behind_the_cross_attention_adds_two_adapters_per_block():
    """93.0 - 85.9 million in table 1c."""
    difference = trainable(build(f"{CAST}_attention_adapter")) - trainable(build(f"{CAST}_attention"))
    assert difference == 24 * 295_872 == pytest.approx((93.0 - 85.9) * 1e6, abs=0.1e6)


@pytest.mark.parametrize(
    ("options", "millions"),
    [
        ({}, 49.39),
        ({"audio_positions": "clock"}, 43.78),
        ({"audio_frames": 1024}, 56.25),
        ({"audio_frames": 1024, "audio_positions": "clock"}, 43.78),
    ],
    ids=["4 s, tables", "4 s, seconds", "10.24 s, tables", "10.24 s, seconds"],
)
def test_cava_without_its_classifiers(options, millions):
    network = build(CAVA, **options)
    assert trainable(network) - count(network.head.classify.parameters()) == pytest.approx(millions * 1e6, abs=5e3)


@pytest.mark.parametrize(("frames", "millions", "columns"), [(400, 85.6, 39), (1024, 86.2, 101)])
def test_frozen_audio_expert(frames, millions, columns):
    expert = build(CAVA, audio_frames=frames).experts["audio"]
    assert expert.layout.grid == (12, columns)
    assert frozen(expert) == pytest.approx(millions * 1e6, abs=5e4)


@pytest.mark.parametrize(
    ("name", "millions"),
    [(f"{CA2ST}_last3_clock_shared", 62.54), (f"{CA2ST}_last3_clock", 67.86), (CA2ST, 122.26)],
)
def test_ca2st_on_epic_kitchens(name, millions):
    assert trainable(build(name)) == pytest.approx(millions * 1e6, abs=5e3)


SHIFTED = [name for name in NAMED if name.startswith(("framewise", "tokenshift", "msca")) and "_base_" in name]


@pytest.mark.parametrize("name", SHIFTED)
def test_framewise_models_have_no_parameters_of_their_own(name):
    """MSCA and TokenShift are a ViT-B/16 with other inputs to its attention."""
    assert count(build(name, {LABEL: 400}).parameters()) == 86_106_256


@pytest.mark.parametrize("name", [name for name in NAMED if "_base_" in name or "_large_" in name])
def test_every_model_of_full_size_can_be_built(name):
    network = build(name)
    assert 0 < trainable(network) < count(network.parameters())
    assert all(p.is_meta for p in network.parameters())
    # What trains without its experts trains in any exchange, adapter and head, and in no embedding.
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert not any(".embedding." in name or name.endswith("qkv.weight") for name in trained)
    assert {name for name, _ in network.named_parameters() if not name.startswith("experts.")} <= trained


@pytest.mark.parametrize(
    ("name", "blocks", "width", "patch"),
    [("cast_large_patch14_224", 24, 1024, 14), ("temporal_large_patch16_224", 24, 1024, 16)],
)
def test_large_models_have_the_sizes_of_vit_large(name, blocks, width, patch):
    network = build(name)
    expert = next(iter(network.experts.values()))
    assert (network.depth, expert.layout.width, expert.spec.patch_size) == (blocks, width, patch)
    # A ViT-L has 303 to 304 million, and frozen experts differ from it by norms and positions only.
    assert frozen(network) / len(network.experts) == pytest.approx(303.5e6, rel=5e-3)
