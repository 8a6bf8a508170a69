import dataclasses

import numpy as np
import pytest
import torch
from timm.data.mixup import Mixup, cutmix_bbox_and_lam, mixup_target

from cast_ray.data.mixup import Mixing, mix, smooth_targets
from cast_ray.models.spec import AUDIO, AUDIO_TIMES, HAS_AUDIO, VIDEO

NUM_CLASSES = {"verb": 7, "noun": 11}


def batch(size, seed=0):
    torch.manual_seed(seed)
    clips = torch.randn(size, 3, 2, 4, 4)
    targets = {name: torch.randint(0, count, (size,)) for name, count in NUM_CLASSES.items()}
    return clips, targets, torch.ones(size, dtype=torch.bool)


MIXUP = Mixing(probability=1.0, mixup_alpha=0.8, cutmix_alpha=0.0, cutmix_switch=0.5, sound="linear")
CUTMIX = dataclasses.replace(MIXUP, mixup_alpha=0.0, cutmix_alpha=1.0)


def run(clips, targets, valid, *, seed=0, **changes):
    inputs, soft = run_all({VIDEO: clips}, targets, valid, seed, **changes)
    return inputs[VIDEO], soft


def run_all(inputs, targets, valid, seed=0, mixing=MIXUP, **changes):
    return mix(
        inputs,
        targets,
        valid,
        num_classes=NUM_CLASSES,
        mixing=dataclasses.replace(mixing, **changes),
        smoothing=0.1,
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


@pytest.mark.parametrize("sound", ["linear", "cutmix"])
@pytest.mark.parametrize("seed", range(4))
def test_middle_clip_of_an_odd_batch_keeps_itself_exactly(sound, seed):
    inputs, targets, valid = sound_batch([True] * 5)
    mixed, soft = run_all(inputs, targets, valid, seed=seed, sound=sound)
    for name in (VIDEO, AUDIO):
        assert torch.equal(mixed[name][2], inputs[name][2])
        assert not torch.allclose(mixed[name][0], inputs[name][0])
    for name, count in NUM_CLASSES.items():
        assert torch.equal(soft[name][2], smooth_targets(targets[name], valid, count, 0.1)[2])


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


@pytest.mark.parametrize("off", [{"probability": 0.0}, {"mixup_alpha": 0.0}])
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


def sound_batch(has_audio, video=True):
    clips, targets, valid = batch(len(has_audio))
    inputs = {AUDIO: torch.randn(len(has_audio), 16, 30), HAS_AUDIO: torch.tensor(has_audio)}
    return ({VIDEO: clips} if video else {}) | inputs, targets, valid


def targets_with(weights, targets):
    """Soft targets of clips that keep the share `weights` [B] of their own labels, by timm clip by clip."""
    return {
        name: torch.stack([mixup_target(targets[name], count, w, 0.1)[row] for row, w in enumerate(weights)])
        for name, count in NUM_CLASSES.items()
    }


@pytest.mark.parametrize("video", [True, False])
def test_sound_is_mixed_as_the_video_is(video):
    inputs, targets, valid = sound_batch([True] * 6, video)
    mixed, soft = run_all(inputs, targets, valid)
    lam = drawn_weight()
    assert set(mixed) == set(inputs)
    for name in {VIDEO, AUDIO} & set(inputs):
        torch.testing.assert_close(mixed[name], inputs[name] * lam + inputs[name].flip(0) * (1 - lam))
    torch.testing.assert_close(soft, targets_with([lam] * 6, targets))


def test_a_pair_that_does_not_both_have_sound_keeps_its_own_sound_and_has_the_labels_of_its_video():
    inputs, targets, valid = sound_batch([True, False, True, True, True, False])
    mixed, soft = run_all(inputs, targets, valid)
    lam = drawn_weight()
    torch.testing.assert_close(mixed[VIDEO], inputs[VIDEO] * lam + inputs[VIDEO].flip(0) * (1 - lam))
    assert torch.equal(mixed[AUDIO][[0, 1, 4, 5]], inputs[AUDIO][[0, 1, 4, 5]])
    torch.testing.assert_close(mixed[AUDIO][2], inputs[AUDIO][2] * lam + inputs[AUDIO][3] * (1 - lam))
    assert torch.equal(mixed[HAS_AUDIO], inputs[HAS_AUDIO])
    torch.testing.assert_close(soft, targets_with([lam] * 6, targets))


@pytest.mark.parametrize("sound", ["linear", "cutmix"])
def test_without_video_a_clip_that_keeps_its_sound_keeps_its_labels(sound):
    inputs, targets, valid = sound_batch([True, True, False, True], video=False)
    _, soft = run_all(inputs, targets, valid, sound=sound)
    own = smooth_targets(targets["noun"], valid, 11, 0.1)
    assert torch.equal(soft["noun"][[1, 2]], own[[1, 2]])
    if sound == "linear":
        lam = drawn_weight()
        torch.testing.assert_close(soft, targets_with([lam, 1.0, 1.0, lam], targets))


def test_sound_is_left_alone_if_asked_for():
    inputs, targets, valid = sound_batch([True] * 4)
    mixed, soft = run_all(inputs, targets, valid, sound="none")
    assert torch.equal(mixed[AUDIO], inputs[AUDIO])
    torch.testing.assert_close(soft, targets_with([drawn_weight()] * 4, targets))
    inputs.pop(VIDEO)
    _, soft = run_all(inputs, targets, valid, sound="none")
    torch.testing.assert_close(soft, targets_with([1.0] * 4, targets))


@pytest.mark.parametrize("seed", range(8))
def test_a_box_of_the_partners_spectrogram_has_timms_place_and_its_area_mixes_the_labels(seed):
    inputs, targets, valid = sound_batch([True, True, False, True, True, True])
    mixed, soft = run_all(inputs, targets, valid, seed=seed, sound="cutmix")
    lam = drawn_weight(seed=seed)
    rng = np.random.default_rng(seed)
    rng.random(), rng.beta(0.8, 0.8)
    with pytest.MonkeyPatch.context() as patch:  # timm draws the centre with numpy's global functions, row first
        patch.setattr(np.random, "randint", lambda low, high, size=None: rng.integers(low, high))
        (top, bottom, left, right), corrected = cutmix_bbox_and_lam((16, 30), lam)
    for row in (0, 1, 4, 5):
        expected = inputs[AUDIO][row].clone()
        expected[top:bottom, left:right] = inputs[AUDIO][5 - row][top:bottom, left:right]
        assert torch.equal(mixed[AUDIO][row], expected)
    assert torch.equal(mixed[AUDIO][[2, 3]], inputs[AUDIO][[2, 3]])
    torch.testing.assert_close(mixed[VIDEO], inputs[VIDEO] * lam + inputs[VIDEO].flip(0) * (1 - lam))
    torch.testing.assert_close(soft, targets_with([corrected, corrected, lam, lam, corrected, corrected], targets))


def test_other_inputs_are_handed_on_and_the_given_mapping_is_not_changed():
    inputs, targets, valid = sound_batch([True] * 4)
    inputs[AUDIO_TIMES] = torch.rand(4, 2)
    before = dict(inputs)
    mixed, _ = run_all(inputs, targets, valid)
    assert mixed[AUDIO_TIMES] is inputs[AUDIO_TIMES]
    assert all(inputs[name] is value for name, value in before.items())


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX], ids=["mixup", "cutmix"])
def test_sound_draws_nothing_that_the_video_would_have_drawn(mixing):
    """A run without sound is the same run as before there was sound."""
    inputs, targets, valid = sound_batch([True] * 4)
    rngs = [np.random.default_rng(0), np.random.default_rng(0)]
    for given, rng in zip(({VIDEO: inputs[VIDEO]}, inputs), rngs, strict=True):
        mix(given, targets, valid, num_classes=NUM_CLASSES, mixing=mixing, smoothing=0.1, rng=rng)
    assert rngs[0].random() == rngs[1].random()


class TimmDraws:
    """Lets timm draw from one of our generators, in whose place it uses numpy's global functions."""

    def __init__(self, patch: pytest.MonkeyPatch, seed: int) -> None:
        rng = np.random.default_rng(seed)
        patch.setattr(np.random, "rand", lambda: rng.random())
        patch.setattr(np.random, "beta", rng.beta)
        patch.setattr(np.random, "randint", lambda low, high, size=None: rng.integers(low, high))


@pytest.mark.parametrize(
    "changes",
    [
        {"cutmix_alpha": 0.0},
        {"mixup_alpha": 0.0},
        {},
        {"cutmix_switch": 0.9, "mixup_alpha": 0.3},
        {"probability": 0.6},
    ],
    ids=["mixup", "cutmix", "both", "mostly cutmix", "not always"],
)
def test_equals_timms_batch_mode_draw_for_draw(changes):
    """Whether, which one, lambda, box and soft labels, over one head and over two."""
    mixing = dataclasses.replace(MIXUP, **({"cutmix_alpha": 1.0} | changes))
    clips, targets, valid = batch(6)
    clips = torch.randn(6, 3, 2, 20, 32)
    kinds = set()
    for seed in range(40):
        mixed, soft = run(clips, targets, valid, seed=seed, mixing=mixing)
        for name, count in NUM_CLASSES.items():
            theirs = Mixup(
                mixup_alpha=mixing.mixup_alpha,
                cutmix_alpha=mixing.cutmix_alpha,
                prob=mixing.probability,
                switch_prob=mixing.cutmix_switch,
                label_smoothing=0.1,
                num_classes=count,
            )
            with pytest.MonkeyPatch.context() as patch:
                TimmDraws(patch, seed)
                # timm knows images: frames become their channels, so that all have one box.
                expected, expected_soft = theirs(clips.flatten(1, 2).clone(), targets[name])
            torch.testing.assert_close(mixed.flatten(1, 2), expected)
            torch.testing.assert_close(soft[name], expected_soft)
        changed = (mixed != clips).float().mean().item()
        kinds.add("none" if changed == 0 else "mixup" if changed == 1 else "cutmix")
    assert ("cutmix" in kinds) == (mixing.cutmix_alpha > 0)
    assert ("mixup" in kinds) == (mixing.mixup_alpha > 0)
    assert ("none" in kinds) == (mixing.probability < 1)


def test_draws_have_the_statistics_of_timm():
    """timm's own draws with its own random state: how often which kind, and the distribution of lambda."""
    mixing = dataclasses.replace(MIXUP, probability=0.9, cutmix_alpha=1.0, cutmix_switch=0.3)
    np.random.seed(0)
    theirs = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, prob=0.9, switch_prob=0.3)
    rng = np.random.default_rng(0)
    draws = 8000
    ours, expected = (
        np.array([draw() for _ in range(draws)]) for draw in (lambda: mixing.draw(rng), theirs._params_per_batch)
    )
    for kinds in (ours, expected):
        assert abs((kinds[:, 0] < 1).mean() - 0.9) < 4 * np.sqrt(0.09 / draws)
        assert abs(kinds[:, 1].mean() - 0.27) < 4 * np.sqrt(0.2 / draws)
    for cut in (0, 1):
        a, b = (np.sort(kinds[(kinds[:, 1] == cut) & (kinds[:, 0] < 1), 0]) for kinds in (ours, expected))
        grid = np.concatenate([a, b])
        shares = [np.searchsorted(sample, grid, "right") / len(sample) for sample in (a, b)]
        assert np.abs(shares[0] - shares[1]).max() < 1.95 * np.sqrt(1 / len(a) + 1 / len(b))


def test_the_box_is_one_for_all_frames_and_labels_have_its_true_area():
    """A box at the border is smaller than 1 - lambda says."""
    clips, targets, valid = batch(4)
    clips = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 3, 5, 24, 40)
    shrunk = 0
    for seed in range(30):
        mixed, soft = run(clips, targets, valid, seed=seed, mixing=CUTMIX)
        foreign = mixed != clips
        assert (foreign == foreign[:, :1, :1]).all()
        assert torch.equal(mixed[foreign], clips.flip(0)[foreign])
        own = 1 - foreign[0, 0, 0].float().mean().item()
        torch.testing.assert_close(soft, targets_with([own] * 4, targets))
        shrunk += own > drawn_weight(alpha=1.0, seed=seed) + 0.05
    assert shrunk > 5


@pytest.mark.parametrize("sound", ["linear", "cutmix", "none"])
@pytest.mark.parametrize("seed", range(6))
def test_cut_frames_sound_and_labels_agree(sound, seed):
    """Sound keeps the share that the frames keep, and the labels say so."""
    inputs, targets, valid = sound_batch([True, True, False, True, True, True])
    inputs[VIDEO], inputs[AUDIO] = torch.randn(6, 3, 2, 32, 32), torch.randn(6, 16, 30)
    mixed, soft = run_all(inputs, targets, valid, seed=seed, mixing=CUTMIX, sound=sound)
    seen = 1 - (mixed[VIDEO] != inputs[VIDEO])[0].float().mean().item()
    assert (mixed[VIDEO] != inputs[VIDEO]).flatten(1).any(1).all()
    own = inputs[AUDIO]
    heard = seen
    if sound == "linear":
        expected = own * seen + own.flip(0) * (1 - seen)
    elif sound == "none":
        expected = own
    else:
        rows, columns = ((mixed[VIDEO] != inputs[VIDEO])[0, 0, 0].any(axis).nonzero().flatten() for axis in (1, 0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        top, bottom = (round(edge.item() * 16 / 32) for edge in (top, bottom))
        left, right = (round(edge.item() * 30 / 32) for edge in (left, right))
        expected = own.clone()
        expected[:, top:bottom, left:right] = own.flip(0)[:, top:bottom, left:right]
        heard = 1 - (bottom - top) * (right - left) / (16 * 30)
        assert abs(heard - seen) < 1 / 16 + 1 / 30
    torch.testing.assert_close(mixed[AUDIO][[0, 1, 4, 5]], expected[[0, 1, 4, 5]])
    assert torch.equal(mixed[AUDIO][[2, 3]], own[[2, 3]])
    torch.testing.assert_close(soft, targets_with([heard, heard, seen, seen, heard, heard], targets))


@pytest.mark.parametrize("sound", ["linear", "cutmix"])
def test_cutmix_leaves_invalid_pairs_and_the_middle_clip_alone(sound):
    inputs, targets, valid = sound_batch([True] * 7)
    valid[1] = False
    mixed, soft = run_all(inputs, targets, valid, seed=4, mixing=CUTMIX, sound=sound)
    for name in (VIDEO, AUDIO):
        changed = (mixed[name] != inputs[name]).flatten(1).any(1).tolist()
        assert changed == [True, False, True, False, True, False, True]
    own = smooth_targets(targets["noun"], valid, NUM_CLASSES["noun"], 0.1)
    assert torch.equal(soft["noun"][[1, 3, 5]], own[[1, 3, 5]])


def test_sound_alone_is_blended_with_the_lambda_of_cutmix():
    inputs, targets, valid = sound_batch([True] * 4, video=False)
    mixed, soft = run_all(inputs, targets, valid, mixing=CUTMIX)
    lam = drawn_weight(alpha=1.0)
    torch.testing.assert_close(mixed[AUDIO], inputs[AUDIO] * lam + inputs[AUDIO].flip(0) * (1 - lam))
    torch.testing.assert_close(soft, targets_with([lam] * 4, targets))
