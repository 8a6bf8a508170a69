"""The loss against torch's own cross-entropy, and what invalid rows do to it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cast_ray.data.mixup import smooth_targets
from cast_ray.training.losses import soft_cross_entropy


def random_batch(rows: int = 6, seed: int = 0, **classes: int):
    generator = torch.Generator().manual_seed(seed)
    logits = {field: torch.randn(rows, count, generator=generator) * 3 for field, count in classes.items()}
    labels = {field: torch.randint(count, (rows,), generator=generator) for field, count in classes.items()}
    return logits, labels


def smoothed(labels, logits, valid, smoothing):
    return {field: smooth_targets(labels[field], valid, logits[field].shape[1], smoothing) for field in labels}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("classes", [{"label": 7}, {"verb": 5, "noun": 9}], ids=["label", "verb and noun"])
def test_it_is_torchs_label_smoothed_cross_entropy_added_up_over_the_fields(classes, smoothing):
    logits, labels = random_batch(**classes)
    valid = torch.ones(6, dtype=torch.bool)
    reference = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)
    expected = sum(reference(logits[field], labels[field]) for field in classes)
    torch.testing.assert_close(soft_cross_entropy(logits, smoothed(labels, logits, valid, smoothing), valid), expected)


@given(st.lists(st.booleans(), min_size=6, max_size=6), st.integers(0, 99))
def test_an_invalid_row_adds_nothing_but_counts_in_the_mean(valid, seed):
    valid = torch.tensor(valid)
    logits, labels = random_batch(verb=5, noun=9, seed=seed)
    losses = [torch.nn.functional.cross_entropy(logits[field], labels[field], reduction="none") for field in logits]
    expected = sum(losses)[valid].sum() / 6
    torch.testing.assert_close(soft_cross_entropy(logits, smoothed(labels, logits, valid, 0.0), valid), expected)


def test_an_invalid_row_has_no_gradient_whatever_its_targets_say():
    logits, labels = random_batch(label=7)
    valid = torch.tensor([True, False, True, True, False, True])
    scores = logits["label"].requires_grad_()
    targets = {"label": torch.nn.functional.one_hot(labels["label"], 7).float()}
    soft_cross_entropy({"label": scores}, targets, valid).backward()
    assert (scores.grad.abs().sum(1) > 0).tolist() == valid.tolist()


def test_a_broken_invalid_row_does_not_spoil_the_loss():
    logits, labels = random_batch(label=7)
    valid = torch.tensor([True, True, True, True, True, False])
    targets = smoothed(labels, logits, valid, 0.1)
    clean = soft_cross_entropy(logits, targets, valid)
    logits["label"][5] = torch.inf
    assert soft_cross_entropy(logits, targets, valid) == clean


def test_the_gradient_of_a_batch_does_not_depend_on_how_it_is_divided():
    logits, labels = random_batch(rows=8, verb=5, noun=9)
    valid = torch.tensor([True, False, True, True, True, True, False, False])
    gradients = []
    for parts in (1, 2, 4):  # each part is a worker or an accumulated pass, and their gradients are averaged
        scores = {field: values.clone().requires_grad_() for field, values in logits.items()}
        for rows in torch.arange(8).chunk(parts):
            here = {field: values[rows] for field, values in scores.items()}
            targets = smoothed({field: values[rows] for field, values in labels.items()}, here, valid[rows], 0.1)
            (soft_cross_entropy(here, targets, valid[rows]) / parts).backward()
        gradients.append(torch.cat([values.grad for values in scores.values()], dim=1))
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(gradients[2], gradients[0])


def test_it_is_computed_in_float32_for_bf16_logits():
    logits, labels = random_batch(rows=64, label=7)
    valid = torch.ones(64, dtype=torch.bool)
    half = {"label": logits["label"].bfloat16()}
    loss = soft_cross_entropy(half, smoothed(labels, logits, valid, 0.0), valid)
    expected = torch.nn.functional.cross_entropy(half["label"].float(), labels["label"])
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
