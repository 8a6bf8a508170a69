"""Validation counts against scikit-learn and torch."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

from cast_ray.training.metrics import ValidationCounts, score

CPU = torch.device("cpu")
FIELDS = {"verb": 3, "noun": 4}


def random_batch(rows: int, seed: int, classes=FIELDS):
    generator = torch.Generator().manual_seed(seed)
    logits = {field: torch.randn(rows, count, generator=generator) for field, count in classes.items()}
    labels = {field: torch.randint(count, (rows,), generator=generator) for field, count in classes.items()}
    return logits, labels, torch.rand(rows, generator=generator) < 0.8


def expected(logits, labels, valid):
    """The same figures, from libraries and from the valid rows only."""
    truth = {field: values[valid].numpy() for field, values in labels.items()}
    guess = {field: values[valid].argmax(1).numpy() for field, values in logits.items()}
    result = {f"{field}_top1": accuracy_score(truth[field], guess[field]) for field in logits}
    if len(logits) > 1:
        pairs = [(guess["verb"] == truth["verb"]) & (guess["noun"] == truth["noun"])]
        result["action_top1"] = pairs[0].mean()
    losses = [torch.nn.functional.cross_entropy(logits[field][valid], labels[field][valid]) for field in logits]
    return result | {"clips": int(valid.sum()), "loss": float(sum(losses))}


@pytest.mark.parametrize("classes", [{"label": 5}, FIELDS], ids=["label", "verb and noun"])
def test_figures_are_those_of_sklearn_and_torch_over_the_valid_rows(classes):
    batch = random_batch(200, 1, classes)
    counts = ValidationCounts(tuple(classes), CPU)
    counts.add(*batch)
    assert counts.reduce() == pytest.approx(expected(*batch), rel=1e-5)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(0, 99))
def test_batches_add_up(sizes, seed):
    logits, labels, valid = random_batch(sum(sizes), seed)
    valid[0] = True
    counts = ValidationCounts(tuple(FIELDS), CPU)
    for rows in torch.arange(sum(sizes)).split(sizes):
        batch = [{field: values[rows] for field, values in named.items()} for named in (logits, labels)]
        counts.add(*batch, valid[rows])
    assert counts.reduce() == pytest.approx(expected(logits, labels, valid), rel=1e-4)


def test_the_order_in_which_a_model_returns_its_fields_does_not_matter():
    logits, labels, valid = random_batch(50, 2)
    counts = ValidationCounts(("verb", "noun"), CPU)
    counts.add(dict(reversed(logits.items())), labels, valid)
    assert counts.reduce() == pytest.approx(expected(logits, labels, valid), rel=1e-5)


def test_broken_scores_of_an_invalid_row_do_not_spoil_the_figures():
    logits, labels, valid = random_batch(10, 3)
    valid[:] = True
    valid[4] = False
    logits["verb"][4] = torch.nan
    counts = ValidationCounts(tuple(FIELDS), CPU)
    counts.add(logits, labels, valid)
    assert counts.reduce() == pytest.approx(expected(logits, labels, valid), rel=1e-5)


def test_without_a_valid_clip_everything_is_0():
    logits, labels, _ = random_batch(4, 0)
    counts = ValidationCounts(tuple(FIELDS), CPU)
    counts.add(logits, labels, torch.zeros(4, dtype=torch.bool))
    assert counts.reduce() == {"clips": 0, "loss": 0, "verb_top1": 0, "noun_top1": 0, "action_top1": 0}


def test_sums_and_not_shares_are_added_up_over_the_workers(monkeypatch):
    mine, other = random_batch(30, 4), random_batch(70, 5)
    counts = {name: ValidationCounts(tuple(FIELDS), CPU) for name in ("mine", "other")}
    counts["mine"].add(*mine)
    counts["other"].add(*other)
    sent = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "all_reduce", sent.append)
    counts["other"].reduce()
    monkeypatch.setattr(dist, "all_reduce", lambda sums: sums.add_(sent[0]))
    logits, labels = ({field: torch.cat([mine[i][field], other[i][field]]) for field in FIELDS} for i in (0, 1))
    together = expected(logits, labels, torch.cat([mine[2], other[2]]))
    assert counts["mine"].reduce() == pytest.approx(together, rel=1e-5)


def test_the_best_checkpoint_is_chosen_by_action_or_by_the_one_label():
    assert score({"verb_top1": 0.9, "noun_top1": 0.8, "action_top1": 0.7, "loss": 1.0}) == 0.7
    assert score({"label_top1": 0.6, "loss": 2.0, "clips": 10.0}) == 0.6


def test_with_other_fields_the_best_checkpoint_is_chosen_by_their_mean():
    figures = {"verb_top1": 0.9, "noun_top1": 0.8, "sound_top1": 0.1, "action_top1": 0.7, "loss": 1.0}
    assert score(figures) == pytest.approx(0.6)


def test_action_counts_verb_and_noun_only_whatever_other_fields_there_are():
    classes = {"verb": 3, "sound": 2, "noun": 4}
    logits, labels, valid = random_batch(100, 6, classes)
    counts = ValidationCounts(tuple(classes), CPU)
    counts.add(logits, labels, valid)
    assert counts.reduce() == pytest.approx(expected(logits, labels, valid), rel=1e-5)


def test_without_a_noun_there_is_no_action():
    classes = {"verb": 3, "sound": 2}
    counts = ValidationCounts(tuple(classes), CPU)
    counts.add(*random_batch(10, 7, classes))
    assert "action_top1" not in counts.reduce()
