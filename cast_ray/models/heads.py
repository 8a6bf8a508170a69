"""How clip features become class scores.

CAST, arXiv 2311.18825, equation 6 and appendix A. Legend: B batch, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from cast_ray.errors import UserError
from cast_ray.models.experts.adapter import Adapter
from cast_ray.models.layers import QuickGELU, new_linear
from cast_ray.models.spec import HeadSpec

__all__ = ["Head"]


class Head(nn.Module):
    """One linear classifier per label field, on features of one or more experts.

    A field that the specification gives experts of its own reads the sum of those; all other fields share one feature
    that is joined from all experts.

    Args:
        spec: which field reads which experts, and through what.
        widths: D of each expert by name.
        num_classes: C of each label field; its order is the order of the result.

    Raises:
        UserError: experts of different widths would be added without an adapter between, or a field has a name that
            torch's containers of modules need for themselves.
    """

    def __init__(self, spec: HeadSpec, widths: Mapping[str, int], num_classes: Mapping[str, int]) -> None:
        super().__init__()
        _check_names(num_classes)
        self.experts = tuple(widths)
        self.read_from = {field: spec.fields[field] for field in num_classes if field in spec.fields}
        self.concat = spec.fusion == "concat" and len(widths) > 1
        self.width = max(widths.values())
        shared = [field for field in num_classes if field not in self.read_from]
        self.adapters = nn.ModuleDict()
        if shared and spec.adapters != "no":
            for name in self.experts:
                self.adapters[name] = self._adapter(spec, name, widths[name], skip=spec.adapters == "skip")
        for field, names in self.read_from.items():
            for name in names if spec.field_adapters != "no" else ():
                self.adapters[f"{field}_{name}"] = self._adapter(
                    spec, name, widths[name], skip=spec.field_adapters == "skip"
                )
        self.project = new_linear(sum(widths.values()), self.width) if self.concat and shared else None
        self._check_widths(widths, shared)
        read_widths = {field: self._width_of(names, field, widths) for field, names in self.read_from.items()}
        self.classify = nn.ModuleDict(
            {
                field: new_linear(read_widths.get(field, self.width), count, std=0.0 if spec.zero_classifier else 0.02)
                for field, count in num_classes.items()
            }
        )

    def forward(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features [B, D] by expert to logits [B, C] by field; an expert counts only where it is `present` [B]."""
        heard = {
            name: torch.where(present[name][:, None], x, 0.0) if name in present else x for name, x in features.items()
        }
        shared = None if len(self.read_from) == len(self.classify) else self._join(heard, present)
        return {
            field: classify(self._sum(heard, present, field) if field in self.read_from else shared)
            for field, classify in self.classify.items()
        }

    def _join(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        parts = [self._read(features, present, name, key=name) for name in self.experts]
        return self.project(torch.cat(parts, dim=1)) if self.project is not None else torch.stack(parts).sum(0)

    def _sum(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor], field: str) -> Tensor:
        parts = [self._read(features, present, name, key=f"{field}_{name}") for name in self.read_from[field]]
        return torch.stack(parts).sum(0)

    def _read(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor], name: str, *, key: str) -> Tensor:
        if key not in self.adapters:
            return features[name]
        read = self.adapters[key](features[name])
        return torch.where(present[name][:, None], read, 0.0) if name in present else read

    def _adapter(self, spec: HeadSpec, name: str, width: int, *, skip: bool) -> Adapter:
        if name in spec.mlp_experts:
            return Adapter(width, skip=False, out_width=self.width, activation=QuickGELU, zero_start=False)
        return Adapter(width, skip=skip and width == self.width, out_width=self.width)

    def _width_of(self, names: Sequence[str], field: str, widths: Mapping[str, int]) -> int:
        return self.width if f"{field}_{names[0]}" in self.adapters else widths[names[0]]

    def _check_widths(self, widths: Mapping[str, int], shared: Sequence[str]) -> None:
        groups = [self.experts] if shared and not self.adapters and not self.concat else []
        groups += [names for field, names in self.read_from.items() if f"{field}_{names[0]}" not in self.adapters]
        for names in groups:
            if len({widths[name] for name in names}) > 1:
                raise UserError(
                    f"features of {list(names)} have widths {[widths[name] for name in names]} and cannot be added; "
                    "use adapters in the head, or late fusion by concatenation"
                )


def _check_names(fields: Iterable[str]) -> None:
    taken = [field for field in fields if hasattr(nn.ModuleDict(), field)]
    if taken:
        raise UserError(f"label fields {taken} have names that torch uses for its own; rename the column")
