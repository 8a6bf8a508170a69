"""How experts, exchanges and a head form one model, and which of its tensors train.

Legend: B batch, T frames, U time steps, H and W pixels, M mel bins, F columns of a spectrogram, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cast_ray.models.clock import Clock
from cast_ray.models.experts.expert import Expert
from cast_ray.models.spec import AUDIO, AUDIO_TIMES, HAS_AUDIO, VIDEO, NetworkSpec
from cast_ray.models.stage import Context, ExchangeStage

__all__ = ["Network"]

POSITION_NAMES = ("positions", "pos_embed", "cls_token", "reg_token")
"""Parts of names of tables that do not decay, ours and timm's."""


class Network(nn.Module):
    """N experts that run in step, exchanges between the halves of their blocks, and a head.

    Its inputs are a mapping, or a bare tensor if video is all that it needs:

    - `video`: normalised frames [B, 3, T, H, W]
    - `audio`: normalised log-mel spectrograms [B, M, F]
    - `has_audio`: booleans [B]; where False, spectrogram and seconds are not looked at. Left out: all have sound
    - `video_times` [B, U, 2], `audio_times` [B, 2]: start and end second of every time step, and of the sound

    Args:
        spec: what it is made of.
        experts: experts of equal depth, by name.
        exchanges: one stage per block.
        head: module from features [B, D] by expert to logits [B, C] by label field.
        clock: embeds seconds for the exchanges that want them.
    """

    def __init__(
        self,
        *,
        spec: NetworkSpec,
        experts: Mapping[str, Expert],
        exchanges: Sequence[ExchangeStage],
        head: nn.Module,
        clock: Clock | None,
    ) -> None:
        super().__init__()
        self.spec = spec
        # Typed by what it holds: nn.ModuleDict itself only promises modules.
        self.experts = cast(Mapping[str, Expert], nn.ModuleDict(experts))
        self.exchanges = nn.ModuleList(exchanges)
        self.head = head
        self.clock = clock
        self.grad_checkpointing = False

    @property
    def depth(self) -> int:
        return len(self.exchanges)

    def forward_features(self, inputs: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Feature [B, D] of every expert."""
        return self._features(self._complete(inputs))

    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits [B, C] by label field.

        Raises:
            ValueError: an input is missing or has another shape than the network was built for.
        """
        given = self._complete(inputs)
        return self.head(self._features(given), self._present(given))

    def _complete(self, inputs: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All inputs by name, with nothing in the place of sound that a clip does not have."""
        given = {VIDEO: inputs} if isinstance(inputs, Tensor) else dict(inputs)
        missing = sorted(self.spec.needs - given.keys() - {HAS_AUDIO})
        if missing:
            raise ValueError(f"the network needs the inputs {sorted(self.spec.needs)}; {missing} are missing")
        # Not only masked later: bytes that are no number would survive a multiplication by zero.
        for name in {AUDIO, AUDIO_TIMES} & given.keys() if HAS_AUDIO in given else ():
            heard = given[HAS_AUDIO].view(-1, *[1] * (given[name].ndim - 1))
            given[name] = torch.where(heard, given[name], 0.0)
        return given

    def _present(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Booleans [B] of the experts whose input may be missing."""
        if HAS_AUDIO not in given:
            return {}
        return {name: given[HAS_AUDIO] for name, expert in self.experts.items() if expert.modality == AUDIO}

    def _features(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        context = Context(present=self._present(given), clock={} if self.clock is None else self.clock(given))
        tokens = {name: expert.embed(given[expert.modality]) for name, expert in self.experts.items()}
        for index in range(self.depth):
            if self.grad_checkpointing and self.training:
                tokens = checkpoint(self._block, index, tokens, context, use_reentrant=False)
            else:
                tokens = self._block(index, tokens, context)
        return {name: expert.pool(tokens[name]) for name, expert in self.experts.items()}

    def _block(self, index: int, tokens: Mapping[str, Tensor], context: Context) -> dict[str, Tensor]:
        tokens = {name: expert.blocks[index].attend(tokens[name]) for name, expert in self.experts.items()}
        tokens = self.exchanges[index](tokens, context)
        return {name: expert.blocks[index].feed_forward(tokens[name]) for name, expert in self.experts.items()}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the tokens between blocks for the backward pass and compute the rest again: less memory, slower."""
        self.grad_checkpointing = enable

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
        return {name for name, _ in self.named_parameters() if any(part in name for part in POSITION_NAMES)}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Depth of every parameter as regular expressions in timm's convention.

        Embeddings come first, then the blocks; what matches neither (final norms, the clock and the head) is timm's
        last group.
        """
        return {
            "stem": r"^experts\.\w+\.embedding\.",
            "blocks": [(r"^experts\.\w+\.blocks\.(\d+)\.", None), (r"^exchanges\.(\d+)\.", None)],
        }
