"""How experts, exchanges and a head form one model, and which of its tensors train.

Legend: B batch, T frames, H and W pixels, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from cast_ray.models.experts.expert import Expert

__all__ = ["Network"]


class Network(nn.Module):
    """N experts that run in step, exchanges between the halves of their blocks, and a head.

    Args:
        experts: experts of equal depth, by name.
        exchanges: one module per block from tokens by expert to tokens by expert; `nn.Identity` for none.
        head: module from features [B, D] by expert to logits [B, C] by label field.

    Raises:
        ValueError: the numbers of blocks and exchanges differ.
    """

    def __init__(self, *, experts: Mapping[str, Expert], exchanges: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        depths = {name: len(expert.blocks) for name, expert in experts.items()}
        if set(depths.values()) != {len(exchanges)}:
            raise ValueError(f"experts have depths {depths}, but there are exchanges for {len(exchanges)} blocks")
        # Typed by what it holds: nn.ModuleDict itself only promises modules.
        self.experts = cast(Mapping[str, Expert], nn.ModuleDict(experts))
        self.exchanges = nn.ModuleList(exchanges)
        self.head = head

    @property
    def depth(self) -> int:
        return len(self.exchanges)

    def forward_features(self, clip: Tensor) -> dict[str, Tensor]:
        """Feature [B, D] of every expert for normalised clips [B, 3, T, H, W]."""
        tokens = {name: expert.embed(clip) for name, expert in self.experts.items()}
        for index, exchange in enumerate(self.exchanges):
            tokens = {name: expert.blocks[index].attend(tokens[name]) for name, expert in self.experts.items()}
            tokens = exchange(tokens)
            tokens = {name: expert.blocks[index].feed_forward(tokens[name]) for name, expert in self.experts.items()}
        return {name: expert.pool(tokens[name]) for name, expert in self.experts.items()}

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        """Logits [B, C] by label field for normalised clips [B, 3, T, H, W]."""
        return self.head(self.forward_features(clip))

    def trainable_names(self, train_experts: bool = False) -> tuple[str, ...]:
        """Names of the parameters that train: all but the experts' own, or all if `train_experts`."""
        names = [name for name, _ in self.named_parameters()]
        if train_experts:
            return tuple(names)
        tuned = {f"experts.{key}.{name}" for key, expert in self.experts.items() for name in expert.tuned_names()}
        return tuple(name for name in names if not name.startswith("experts.") or name in tuned)

    def freeze(self, train_experts: bool = False) -> None:
        """Let exactly the parameters of `trainable_names` require gradients."""
        trainable = set(self.trainable_names(train_experts))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in trainable)

    def no_weight_decay(self) -> set[str]:
        """Parameters of two or more axes that are not to decay: the position tables. One-axis ones never decay."""
        return {name for name, _ in self.named_parameters() if "positions" in name}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Depth of every parameter as regular expressions in timm's convention.

        Embeddings come first, then the blocks; what matches neither (final norms and the head) is timm's last group.
        """
        return {
            "stem": r"^experts\.\w+\.embedding\.",
            "blocks": [(r"^experts\.\w+\.blocks\.(\d+)\.", None), (r"^exchanges\.(\d+)\.", None)],
        }
