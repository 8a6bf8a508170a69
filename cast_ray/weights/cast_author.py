"""Which name each tensor of the authors' CAST checkpoints has here (KHU-VLL/CAST, commit 51eb871)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from cast_ray.models.network import Network
from cast_ray.weights.keymap import KeyMap
from cast_ray.weights.strict import load_strictly

__all__ = ["KEY_MAP", "from_author", "holds", "load_author", "to_author"]

BLOCK = "blocks.{i}"
SPATIAL = f"experts.spatial.{BLOCK}"
TEMPORAL = f"experts.temporal.{BLOCK}"
EXCHANGE = "exchanges.{i}"
TO_SPATIAL = f"{EXCHANGE}.attention.temporal_to_spatial"
TO_TEMPORAL = f"{EXCHANGE}.attention.spatial_to_temporal"

KEY_MAP = KeyMap(
    (
        ("experts.spatial.embedding.class_token", "clip_class_embedding"),
        ("experts.spatial.embedding.positions", "clip_positional_embedding"),
        ("experts.spatial.embedding.patch.weight", "clip_conv1.weight"),
        ("experts.spatial.embedding.norm.*", "clip_ln_pre.*"),
        ("experts.temporal.embedding.patch.*", "patch_embed.proj.*"),
        (f"{SPATIAL}.attention_norm.*", f"{BLOCK}.clip_ln_1.*"),
        (f"{SPATIAL}.attention.qkv.weight", f"{BLOCK}.clip_attn.in_proj_weight"),
        (f"{SPATIAL}.attention.qkv.bias", f"{BLOCK}.clip_attn.in_proj_bias"),
        (f"{SPATIAL}.attention.project.*", f"{BLOCK}.clip_attn.out_proj.*"),
        (f"{SPATIAL}.attention_adapter.reduce.*", f"{BLOCK}.S_Adapter.D_fc1.*"),
        (f"{SPATIAL}.attention_adapter.expand.*", f"{BLOCK}.S_Adapter.D_fc2.*"),
        (f"{SPATIAL}.mlp_norm.*", f"{BLOCK}.clip_ln_2.*"),
        (f"{SPATIAL}.mlp.fc1.*", f"{BLOCK}.clip_mlp.c_fc.*"),
        (f"{SPATIAL}.mlp.fc2.*", f"{BLOCK}.clip_mlp.c_proj.*"),
        (f"{SPATIAL}.mlp_adapter.reduce.*", f"{BLOCK}.S_MLP_Adapter.D_fc1.*"),
        (f"{SPATIAL}.mlp_adapter.expand.*", f"{BLOCK}.S_MLP_Adapter.D_fc2.*"),
        (f"{TEMPORAL}.attention_norm.*", f"{BLOCK}.norm1.*"),
        (f"{TEMPORAL}.attention.q_bias", f"{BLOCK}.attn.q_bias"),
        (f"{TEMPORAL}.attention.v_bias", f"{BLOCK}.attn.v_bias"),
        (f"{TEMPORAL}.attention.qkv.weight", f"{BLOCK}.attn.qkv.weight"),
        (f"{TEMPORAL}.attention.project.*", f"{BLOCK}.attn.proj.*"),
        (f"{TEMPORAL}.attention_adapter.reduce.*", f"{BLOCK}.T_Adapter.D_fc1.*"),
        (f"{TEMPORAL}.attention_adapter.expand.*", f"{BLOCK}.T_Adapter.D_fc2.*"),
        (f"{TEMPORAL}.mlp_norm.*", f"{BLOCK}.norm2.*"),
        (f"{TEMPORAL}.mlp.fc1.*", f"{BLOCK}.mlp.fc1.*"),
        (f"{TEMPORAL}.mlp.fc2.*", f"{BLOCK}.mlp.fc2.*"),
        (f"{TEMPORAL}.mlp_adapter.reduce.*", f"{BLOCK}.T_MLP_Adapter.D_fc1.*"),
        (f"{TEMPORAL}.mlp_adapter.expand.*", f"{BLOCK}.T_MLP_Adapter.D_fc2.*"),
        (f"{EXCHANGE}.reduce.spatial.linear.*", f"{BLOCK}.cross_s_down.*"),
        (f"{EXCHANGE}.reduce.spatial.norm.*", f"{BLOCK}.ln_s_cross.*"),
        (f"{EXCHANGE}.reduce.temporal.linear.*", f"{BLOCK}.cross_t_down.*"),
        (f"{EXCHANGE}.reduce.temporal.norm.*", f"{BLOCK}.ln_t_cross.*"),
        (f"{EXCHANGE}.expand.spatial.*", f"{BLOCK}.cross_s_up.*"),
        (f"{EXCHANGE}.expand.temporal.*", f"{BLOCK}.cross_t_up.*"),
        (f"{TO_SPATIAL}.target_positions.time", f"{BLOCK}.t2s_cross.clip_time_pos"),
        (f"{TO_SPATIAL}.source_positions.time", f"{BLOCK}.t2s_cross.vmae_time_pos"),
        (f"{TO_SPATIAL}.query.weight", f"{BLOCK}.t2s_cross.t2s_q.weight"),
        (f"{TO_SPATIAL}.query.bias", f"{BLOCK}.t2s_cross.t2s_q_bias"),
        (f"{TO_SPATIAL}.key_value.weight", f"{BLOCK}.t2s_cross.t2s_kv.weight"),
        (f"{TO_SPATIAL}.key_value.bias", f"{BLOCK}.t2s_cross.t2s_kv_bias"),
        (f"{TO_SPATIAL}.project.*", f"{BLOCK}.t2s_cross.t2s_proj.*"),
        (f"{TO_TEMPORAL}.target_positions.space", f"{BLOCK}.s2t_cross.vmae_space_pos"),
        (f"{TO_TEMPORAL}.source_positions.space", f"{BLOCK}.s2t_cross.clip_space_pos"),
        (f"{TO_TEMPORAL}.query.weight", f"{BLOCK}.s2t_cross.s2t_q.weight"),
        (f"{TO_TEMPORAL}.query.bias", f"{BLOCK}.s2t_cross.s2t_q_bias"),
        (f"{TO_TEMPORAL}.key_value.weight", f"{BLOCK}.s2t_cross.s2t_kv.weight"),
        (f"{TO_TEMPORAL}.key_value.bias", f"{BLOCK}.s2t_cross.s2t_kv_bias"),
        # The authors named this projection `t2s` in both directions.
        (f"{TO_TEMPORAL}.project.*", f"{BLOCK}.s2t_cross.t2s_proj.*"),
        ("experts.spatial.norm.*", "clip_ln_post.*"),
        ("experts.temporal.norm.*", "vmae_fc_norm.*"),
        ("head.adapters.spatial.reduce.*", "noun_last_Adapter.D_fc1.*"),
        ("head.adapters.spatial.expand.*", "noun_last_Adapter.D_fc2.*"),
        ("head.adapters.temporal.reduce.*", "verb_last_Adapter.D_fc1.*"),
        ("head.adapters.temporal.expand.*", "verb_last_Adapter.D_fc2.*"),
        ("head.classify.label.*", "head.*"),
        ("head.classify.verb.*", "head_verb.*"),
        ("head.classify.noun.*", "head_noun.*"),
    )
)


def holds(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors by name are a checkpoint of the authors' CAST."""
    return "clip_class_embedding" in tensors and "patch_embed.proj.weight" in tensors


def from_author(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors under our names, and the authors' names that are unknown here."""
    return KEY_MAP.to_ours(tensors)


def to_author(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors under the authors' names, and our names that their layout has no place for."""
    return KEY_MAP.to_foreign(tensors)


def load_author(network: Network, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Fill a CAST with all tensors of an authors' checkpoint; `where` names it in errors.

    Raises:
        UserError: a tensor is missing, unexpected or of another shape.
    """
    ours, unknown = from_author(tensors)
    load_strictly(network, ours, unknown=unknown, where=where)
