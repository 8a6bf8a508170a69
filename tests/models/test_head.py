"""How features become logits, against the formulas of CAST (equation 6, appendix A) and of CA2ST's code."""

from __future__ import annotations

import math

import pytest
import torch

from cast_ray.errors import UserError
from cast_ray.models.heads import Head
from cast_ray.models.named import NAMED
from cast_ray.models.spec import HeadSpec

WIDTH = 16
LABEL, VERB_NOUN = {"label": 5}, {"verb": 3, "noun": 4}
EXPERTS = {
    "cast_base_patch16_224": ("spatial", "temporal"),
    "cava_base_patch16_224": ("audio", "spatial"),
    "ca2st_base_patch16_224": ("audio", "spatial", "temporal"),
}


class Formulas:
    def __init__(self, head, features):
        self.p, self.f = head.state_dict(), features

    def linear(self, x, name):
        return torch.einsum("bi,oi->bo", x, self.p[f"{name}.weight"]) + self.p[f"{name}.bias"]

    def adapter(self, key, expert):
        hidden = self.linear(self.f[expert], f"adapters.{key}.reduce")
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        return self.linear(hidden, f"adapters.{key}.expand")

    def mlp(self, key, expert):
        hidden = self.linear(self.f[expert], f"adapters.{key}.reduce")
        return self.linear(hidden / (1 + (-1.702 * hidden).exp()), f"adapters.{key}.expand")

    def classify(self, x, field):
        return self.linear(x, f"classify.{field}")


def cast(m):
    return {"label": m.classify(m.adapter("spatial", "spatial") + m.adapter("temporal", "temporal"), "label")}


def cast_actions(m):
    return {"verb": m.classify(m.f["temporal"], "verb"), "noun": m.classify(m.f["spatial"], "noun")}


def cava(m):
    z = sum(m.f[name] + m.adapter(name, name) for name in ("audio", "spatial"))
    return {field: m.classify(z, field) for field in ("label", "verb", "noun") if f"classify.{field}.weight" in m.p}


def ca2st(m):
    z = m.adapter("spatial", "spatial") + m.adapter("temporal", "temporal") + m.mlp("audio", "audio")
    return {"label": m.classify(z, "label")}


def ca2st_actions(m):
    verb = m.adapter("verb_temporal", "temporal") + m.mlp("verb_audio", "audio")
    noun = m.adapter("noun_spatial", "spatial") + m.mlp("noun_audio", "audio")
    return {"verb": m.classify(verb, "verb"), "noun": m.classify(noun, "noun")}


def random_features(experts, batch=2, width=WIDTH):
    torch.manual_seed(1)
    return {name: torch.randn(batch, width) for name in experts}


@pytest.mark.parametrize(
    ("name", "counts", "formula"),
    [
        ("cast_base_patch16_224", LABEL, cast),
        ("cast_base_patch16_224", VERB_NOUN, cast_actions),
        ("cava_base_patch16_224", LABEL, cava),
        ("cava_base_patch16_224", VERB_NOUN, cava),
        ("ca2st_base_patch16_224", LABEL, ca2st),
        ("ca2st_base_patch16_224", VERB_NOUN, ca2st_actions),
    ],
)
def test_logits_follow_the_formula_of_the_model(name, counts, formula, randomise):
    head = randomise(Head(NAMED[name].head, dict.fromkeys(EXPERTS[name], WIDTH), counts))
    features = random_features(EXPERTS[name])
    actual, expected = head(features, {}), formula(Formulas(head, features))
    assert list(actual) == list(counts)
    for field in counts:
        torch.testing.assert_close(actual[field], expected[field])


@pytest.mark.parametrize("name", ["cast_tiny", "ca2st_tiny"])
@pytest.mark.parametrize("counts", [LABEL, VERB_NOUN])
def test_the_gradient_reaches_untrained_experts_of_a_small_model_from_the_start(name, counts):
    experts = tuple(NAMED[name].experts)
    features = {key: x.requires_grad_() for key, x in random_features(experts).items()}
    head = Head(NAMED[name].head, dict.fromkeys(experts, WIDTH), counts)
    sum(logits.square().sum() for logits in head(features, {}).values()).backward()
    for expert in {"spatial", "temporal"}:
        assert features[expert].grad.abs().max() > 1e-4


@pytest.mark.parametrize("fusion", ["sum", "concat"])
def test_late_fusion_adds_features_or_projects_them_together(fusion, randomise):
    names = EXPERTS["ca2st_base_patch16_224"]
    head = randomise(Head(HeadSpec(adapters="no", fusion=fusion), dict.fromkeys(names, WIDTH), VERB_NOUN))
    features = random_features(names)
    m = Formulas(head, features)
    z = sum(features.values()) if fusion == "sum" else m.linear(torch.cat(list(features.values()), 1), "project")
    actual = head(features, {})
    for field in VERB_NOUN:
        torch.testing.assert_close(actual[field], m.classify(z, field))


@pytest.mark.parametrize("name", EXPERTS)
@pytest.mark.parametrize("counts", [LABEL, VERB_NOUN])
def test_an_absent_expert_counts_for_nothing(name, counts, randomise):
    head = randomise(Head(NAMED[name].head, dict.fromkeys(EXPERTS[name], WIDTH), counts))
    features = random_features(EXPERTS[name])
    absent = EXPERTS[name][0]
    present = {absent: torch.tensor([True, False])}
    actual, other = head(features, present), head({**features, absent: features[absent] + 1}, present)
    for field, logits in actual.items():
        assert torch.equal(logits[1], other[field][1])
        torch.testing.assert_close(logits[0], head(features, {})[field][0])


def test_adapters_bring_experts_of_different_width_together():
    head = Head(HeadSpec(), {"spatial": 8, "temporal": 16}, LABEL)
    assert head({"spatial": torch.randn(2, 8), "temporal": torch.randn(2, 16)}, {})["label"].shape == (2, 5)


def test_every_field_reads_an_expert_at_its_own_width():
    head = Head(NAMED["cast_base_patch16_224"].head, {"spatial": 8, "temporal": 16}, VERB_NOUN)
    assert (head.classify["verb"].in_features, head.classify["noun"].in_features) == (16, 8)


def test_a_sum_of_different_widths_is_refused():
    with pytest.raises(UserError, match=r"\['spatial', 'temporal'\] have widths \[8, 16\].*concatenation"):
        Head(HeadSpec(adapters="no"), {"spatial": 8, "temporal": 16}, LABEL)
    Head(HeadSpec(adapters="no", fusion="concat"), {"spatial": 8, "temporal": 16}, LABEL)


@pytest.mark.parametrize("field", ["type", "float", "half", "train", "keys", "values", "items", "forward", "training"])
def test_a_field_that_torch_has_no_name_left_for_is_refused(field):
    with pytest.raises(UserError, match=rf"label fields \['{field}'\] have names.*rename the column"):
        Head(HeadSpec(), {"spatial": WIDTH}, {"verb": 3, field: 2})


def test_last_adapters_start_at_zero_and_the_audio_network_of_ca2st_does_not():
    head = Head(NAMED["ca2st_base_patch16_224"].head, dict.fromkeys(EXPERTS["ca2st_base_patch16_224"], WIDTH), LABEL)
    assert not head.adapters["spatial"].expand.weight.any()
    assert head.adapters["audio"].expand.weight.any()
    assert not any(linear.bias.any() for linear in head.classify.values())
