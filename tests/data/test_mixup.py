import numpy as np
import pytest
import torch
from timm.data.mixup import mixup_target

from cast_ray.data.mixup import mix, smooth_targets

NUM_CLASSES = {"verb": 7, "noun": 11}


def batch(size, seed=0):
    torch.manual_seed(seed)
    clips = torch.randn(size, 3, 2, 4, 4)
    targets = {name: torch.randint(0, count, (size,)) for name, count in NUM_CLASSES.items()}
    return clips, targets, torch.ones(size, dtype=torch.bool)


def run(clips, targets, valid, *, alpha=0.8, probability=1.0, smoothing=0.1, seed=0):
    return mix(
        clips,
        targets,
        valid,
        num_classes=NUM_CLASSES,
        alpha=alpha,
        probability=probability,
        smoothing=smoothing,
        rng=np.random.default_rng(seed),
    )


def drawn_weight(alpha=0.8, seed=0):
    rng = np.random.default_rng(seed)
    rng.random()
    return float(rng.beta(alpha, alpha))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_timm_for_the_same_lambda(seed):
    clips, targets, valid = batch(6)
    mixed, soft = run(clips, targets, valid, seed=seed)
    lam = drawn_weight(seed=seed)
    torch.testing.assert_close(mixed, clips * lam + clips.flip(0) * (1 - lam))
    for name, count in NUM_CLASSES.items():
        torch.testing.assert_close(soft[name], mixup_target(targets[name], count, lam, 0.1))


def test_middle_clip_of_an_odd_batch_keeps_itself():
    clips, targets, valid = batch(5)
    mixed, soft = run(clips, targets, valid)
    torch.testing.assert_close(mixed[2], clips[2])
    assert soft["verb"][2].argmax() == targets["verb"][2]
    assert not torch.allclose(mixed[0], clips[0])


def test_a_pair_with_an_invalid_clip_is_not_mixed():
    clips, targets, valid = batch(6)
    valid[1] = False
    targets["verb"][1] = -1
    mixed, soft = run(clips, targets, valid)
    assert torch.equal(mixed[[1, 4]], clips[[1, 4]])
    assert not torch.allclose(mixed[0], clips[0])
    assert torch.equal(soft["verb"][1], torch.zeros(7))
    torch.testing.assert_close(soft["verb"][4], smooth_targets(targets["verb"], valid, 7, 0.1)[4])
    torch.testing.assert_close(soft["noun"].sum(1), valid.float())


@pytest.mark.parametrize("off", [{"probability": 0.0}, {"alpha": 0.0}])
def test_switched_off_leaves_clips_and_smooths_labels(off):
    clips, targets, valid = batch(4)
    mixed, soft = run(clips, targets, valid, **off)
    assert torch.equal(mixed, clips)
    torch.testing.assert_close(soft["noun"], mixup_target(targets["noun"], 11, 1.0, 0.1))


def test_probability_and_beta_distribution_are_used():
    clips, targets, valid = batch(2)
    clips = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1, 1)
    weights = np.array([run(clips, targets, valid, probability=0.9, seed=s)[0][1].item() for s in range(3000)])
    assert abs((weights < 1).mean() - 0.9) < 0.025
    drawn = weights[weights < 1]
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)).
    assert abs(drawn.mean() - 0.5) < 0.025
    assert abs(drawn.var() - 1 / (4 * 2.6)) < 0.006


def test_smoothing_matches_cross_entropy_of_torch():
    _, targets, valid = batch(6)
    logits = torch.randn(6, 7)
    soft = smooth_targets(targets["verb"], valid, 7, 0.1)
    torch.testing.assert_close(
        torch.nn.functional.cross_entropy(logits, soft),
        torch.nn.functional.cross_entropy(logits, targets["verb"], label_smoothing=0.1),
    )


def test_low_precision_clips_keep_their_type():
    clips, targets, valid = batch(4)
    mixed, soft = run(clips.bfloat16(), targets, valid)
    assert mixed.dtype == torch.bfloat16
    assert soft["verb"].dtype == torch.float32
    torch.testing.assert_close(mixed.float(), run(clips.bfloat16().float(), targets, valid)[0], atol=0.02, rtol=0.01)
