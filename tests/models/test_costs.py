"""What networks cost: the papers' figures, and agreement with the real network at full depth."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cast_ray.models.assemble import assemble
from cast_ray.models.costs import count_costs, count_step, input_shapes
from cast_ray.models.named import NAMED
from cast_ray.models.options import ModelOptions, vary
from cast_ray.models.spec import NetworkSpec

LABEL, VERB_NOUN = {"label": 174}, {"verb": 97, "noun": 300}


def _at(name: str, *, image_size: int = 224, options: ModelOptions | None = None) -> NetworkSpec:
    spec = vary(NAMED[name], options or ModelOptions())
    return replace(spec, video=replace(spec.video, image_size=image_size))


def _with_meta_inputs(spec: NetworkSpec) -> dict[str, torch.Tensor]:
    return {
        name: torch.empty(1, *shape, device="meta", dtype=torch.bool if name == "has_audio" else None)
        for name, shape in input_shapes(spec).items()
    }


@pytest.mark.parametrize(
    ("name", "options", "gmac"),
    [
        ("cast_base_patch16_224", None, 390.5),
        ("spatial_base_patch16_224", ModelOptions(adapters=False), 140.5),
        ("temporal_base_patch16_224", ModelOptions(adapters=False), 180.3),
        ("cava_base_patch16_224", None, 241.5),
        ("cava_base_patch16_224_clock", None, 241.5),
        ("cava_base_patch16_224", ModelOptions(audio_frames=1024), 365.2),
        ("ca2st_base_patch16_224_last3_clock", None, 459.1),
        ("ca2st_base_patch16_224_last3_clock_shared", None, 459.1),
        ("ca2st_base_patch16_224", None, 522.7),
        ("framewise_base_patch16_224", None, 140.5),
        ("framewise_base_patch16_224", ModelOptions(patch_size=32), 35.3),
    ],
)
def test_multiply_adds_are_those_of_the_papers(name, options, gmac):
    counted = count_costs(_at(name, options=options), VERB_NOUN if "ca2st" in name else LABEL).multiply_adds / 1e9
    # The published figures have one decimal.
    assert counted == pytest.approx(gmac, abs=0.051)


def test_multiply_adds_of_a_frame_wise_vit_at_384_pixels():
    assert count_costs(_at("framewise_base_patch16_224", image_size=384), LABEL).multiply_adds / 1e9 == pytest.approx(
        443.9, abs=0.05
    )


@pytest.mark.parametrize(
    ("name", "image_size", "gmac"),
    [
        ("framewise_base_patch16_224", 224, 134.78),
        ("framewise_base_patch16_224", 256, 175.84),
        ("framewise_base_patch16_224", 384, 394.78),
        ("framewise_large_patch16_224", 384, 1397.6),
    ],
)
def test_without_attention_products_they_are_those_of_token_shift(name, image_size, gmac):
    # Their counter knows linear and convolution layers only, so the products are subtracted: QK' and AV in each block.
    spec = _at(name, image_size=image_size)
    (expert,), tokens = spec.experts.values(), 1 + (image_size // 16) ** 2
    products = 2 * expert.depth * spec.video.num_frames * tokens**2 * expert.width
    assert (count_costs(spec, LABEL).multiply_adds - products) / 1e9 == pytest.approx(gmac, rel=5e-5)


@pytest.mark.parametrize("name", ["tokenshift", "msca_kv", "msca_qkv", "msca_patch_kv"])
def test_shifts_between_frames_cost_no_multiply_adds_and_no_parameters(name):
    shifted, plain = (count_costs(NAMED[f"{x}_base_patch16_224"], LABEL) for x in (name, "framewise"))
    assert shifted == plain


@pytest.mark.parametrize(
    ("name", "classes", "trainable"),
    [
        ("cast_base_patch16_224", {"verb": 97, "noun": 300}, 44_784_781),
        ("cast_base_patch16_224", {"label": 174}, 45_205_038),
        ("cast_base_patch16_224", {"label": 400}, 45_378_832),
    ],
)
def test_trainable_parameters_are_those_of_the_paper(name, classes, trainable):
    assert count_costs(NAMED[name], classes).trainable_parameters == trainable


@pytest.mark.parametrize("name", ["msca_kv_tiny", "framewise_tiny", "cast_tiny_late_add", "cast_tiny_lateral"])
def test_everything_trains_where_no_expert_has_adapters(name):
    costs = count_costs(NAMED[name], LABEL)
    assert NAMED[name].trains_whole
    assert costs.trainable_parameters == costs.parameters


def test_asking_for_trained_experts_changes_what_trains_and_nothing_else():
    frozen, whole = (count_costs(NAMED["cast_tiny"], LABEL, train_experts=x) for x in (False, True))
    assert whole.trainable_parameters == whole.parameters == frozen.parameters > frozen.trainable_parameters
    assert whole.multiply_adds == frozen.multiply_adds


@pytest.mark.parametrize(
    "name",
    [
        "cast_tiny",
        "cast_tiny_last2",
        "cast_tiny_eva",
        "cast_tiny_late_concat",
        "ca2st_tiny_last1_clock_shared",
        "ca2st_tiny_sequence",
        "cava_tiny_clock",
        "audio_tiny",
        "tokenshift_tiny",
        "cast_base_patch16_224_last3",
    ],
)
def test_one_block_of_each_kind_stands_for_all(name):
    spec = NAMED[name]
    with torch.device("meta"):
        network = assemble(spec, VERB_NOUN).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(_with_meta_inputs(spec))
    costs = count_costs(spec, VERB_NOUN)
    assert costs.multiply_adds == counter.get_total_flops() // 2
    assert costs.parameters == sum(weight.numel() for weight in network.parameters())


def test_the_count_is_that_of_the_layers_added_up_by_hand():
    # Width 64, 3 blocks, 4 frames of 16 patches and a class token: every matrix of the network, written out.
    spec, width, tokens = NAMED["spatial_tiny"], 64, 4 * 17
    per_token = 4 * width**2 + 8 * width**2 + 2 * 2 * width * (width // 4)
    attention = 2 * 4 * 17**2 * width
    patches = 4 * 16 * 3 * 8 * 8 * width
    assert count_costs(spec, LABEL).multiply_adds == 3 * (tokens * per_token + attention) + patches + width * 174


def test_training_everything_costs_three_forward_passes_less_the_gradient_of_the_pixels():
    spec = NAMED["framewise_tiny"]
    forward = count_costs(spec, LABEL).multiply_adds
    patches = 8 * 16 * 3 * 8 * 8 * 64
    assert count_step(spec, LABEL) == 3 * forward - patches


def test_a_step_with_frozen_experts_needs_input_gradients_but_only_few_weight_gradients():
    spec = NAMED["cast_tiny"]
    forward, frozen = count_costs(spec, LABEL).multiply_adds, count_step(spec, LABEL)
    assert 2 * forward < frozen < count_step(spec, LABEL, train_experts=True) < 3 * forward


def test_checkpointed_activations_are_computed_once_more():
    spec = NAMED["cast_tiny"]
    plain, again = (count_step(spec, LABEL, checkpoint_activations=x) for x in (False, True))
    # Recomputation stops with the last activation that is needed, so the end of a block is not repeated.
    assert 0.85 < (again - plain) / count_costs(spec, LABEL).multiply_adds < 1


class _Kept:
    """Bytes that autograd keeps for the backward pass, by the module that made it keep them; weights do not count."""

    def __init__(self, network: nn.Module) -> None:
        self.bytes: dict[str, int] = {}
        self._weights = {weight.data_ptr() for weight in network.parameters()}
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._inside: list[str] = []
        for name, module in network.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: self._inside.append(name))
            module.register_forward_hook(lambda *_: self._inside.pop() and None)

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tensor.data_ptr() not in self._weights and storage._cdata not in self._storages:
            self._storages[storage._cdata] = storage
            where = self._inside[-1] if self._inside else ""
            self.bytes[where] = self.bytes.get(where, 0) + storage.nbytes()
        return tensor

    def below(self, prefix: str) -> int:
        return sum(size for name, size in self.bytes.items() if name.startswith(prefix))


def _kept(name: str, *, train_experts: bool = False) -> _Kept:
    torch.manual_seed(0)
    spec = NAMED[name]
    network = assemble(spec, LABEL).train()
    network.freeze(train_experts)
    kept = _Kept(network)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        network(torch.randn(2, *spec.video.shape))
    return kept


@pytest.mark.parametrize("role", ["spatial", "temporal"])
def test_nothing_is_kept_for_frozen_layers_before_the_first_that_trains(role):
    kept = _kept("cast_tiny")
    for frozen in ("embedding", "blocks.0.attention_norm", "blocks.0.attention."):
        assert kept.below(f"experts.{role}.{frozen}") == 0
    assert kept.below(f"experts.{role}.blocks.0.attention_adapter") > 0
    assert _kept("cast_tiny", train_experts=True).below(f"experts.{role}.embedding") > 0


@pytest.mark.parametrize("role", ["spatial", "temporal"])
def test_frozen_linear_layers_keep_no_inputs(role):
    kept = _kept("cast_tiny")
    for index in range(3):
        for layer in ("attention.qkv", "attention.project", "mlp.fc1", "mlp.fc2"):
            assert kept.below(f"experts.{role}.blocks.{index}.{layer}") == 0


@pytest.mark.parametrize(("role", "tokens"), [("spatial", 2 * 4 * 17), ("temporal", 2 * 4 * 16)])
def test_attention_and_feed_forward_keep_every_tensor_once(role, tokens):
    kept, width, heads, single = _kept("cast_tiny"), 64, 4, 4
    # Queries, keys and values in one piece, the answer, and the logarithm of each softmax's denominator.
    attention = tokens * (4 * width + heads) * single
    assert (
        kept.below(f"experts.{role}.blocks.1.attention") - kept.below(f"experts.{role}.blocks.1.attention_")
        == attention
    )
    # The activation's input; its output is needed by a frozen layer only, so not at all.
    assert kept.below(f"experts.{role}.blocks.1.mlp.act") == tokens * 4 * width * single
