"""Checkpoint files: what is read, what is refused, and that the reader never runs what it reads."""

from __future__ import annotations

import argparse
import os
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from cast_ray.errors import UserError
from cast_ray.models.cast import CastSize, build_cast
from cast_ray.weights.clip import KEY_MAP as CLIP
from cast_ray.weights.load import frozen_fingerprint, load_experts, read_checkpoint
from cast_ray.weights.videomae import KEY_MAP as VIDEOMAE

SIZE = CastSize(img_size=16, patch_size=8, num_frames=4, width=32, depth=2, num_heads=2)
TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.half)}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_cast(SIZE, {"label": 5})


def own(expert):
    """Random tensors for all parameters of an expert that a foreign model has too."""
    return {name: torch.randn_like(p) for name, p in expert.named_parameters() if "_adapter." not in name}


def clip_file(network, path):
    ours = own(network.experts["spatial"])
    theirs, lost = CLIP.to_foreign(ours)
    assert not lost
    text = {"transformer.resblocks.0.ln_1.weight": torch.ones(1), "positional_embedding": torch.ones(1)}
    extra = {"visual.proj": torch.ones(32, 4), "logit_scale": torch.ones(()), "input_resolution": torch.tensor(16)}
    torch.save({**theirs, **text, **extra}, path)
    return ours


def videomae_tensors(network, *, norm, prefix):
    ours = own(network.experts["temporal"])
    theirs, lost = VIDEOMAE.to_foreign(ours)
    assert not lost
    renamed = {key.replace("fc_norm.", f"{norm}."): tensor for key, tensor in theirs.items()}
    return ours, {prefix + key: tensor for key, tensor in renamed.items()}


@pytest.mark.parametrize("wrap", [None, "model", "module", "state_dict"])
def test_torch_files_are_read_bare_or_wrapped(tmp_path, wrap):
    path = tmp_path / "file.pth"
    arguments = argparse.Namespace(lr=0.1, data="somewhere")
    torch.save(TENSORS if wrap is None else {wrap: TENSORS, "args": arguments, "epoch": 3}, path)
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in read_checkpoint(path).items())
    assert read_checkpoint(path).keys() == TENSORS.keys()


def test_data_parallel_prefix_is_removed(tmp_path):
    torch.save({f"module.{name}": tensor for name, tensor in TENSORS.items()}, tmp_path / "file.pt")
    assert read_checkpoint(tmp_path / "file.pt").keys() == TENSORS.keys()


def test_safetensors_are_read(tmp_path):
    save_file(TENSORS, tmp_path / "file.safetensors")
    assert read_checkpoint(tmp_path / "file.safetensors").keys() == TENSORS.keys()


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_malicious_pickle_is_refused_and_not_run(tmp_path):
    trace = tmp_path / "was_executed"
    torch.save({"model": TENSORS, "args": Malicious(trace)}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil\.pth is refused"):
        read_checkpoint(tmp_path / "evil.pth")
    assert not trace.exists()


def test_torchscript_is_refused_with_the_way_to_convert_it(tmp_path):
    path = tmp_path / "ViT-B-16.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ViT-B-16/constants.pkl", b"")
        archive.writestr("ViT-B-16/code/__torch__.py", b"")
    with pytest.raises(UserError, match=r"torch\.jit\.load\('ViT-B-16\.pt'.*state_dict"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("text.pth", b"not a checkpoint"), ("empty.pt", b""), ("text.safetensors", b"not a checkpoint")],
)
def test_files_that_are_no_checkpoints_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read_checkpoint(tmp_path / name)


def test_missing_file_and_file_without_tensors_are_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.pth does not exist"):
        read_checkpoint(tmp_path / "absent.pth")
    torch.save({"epoch": 3}, tmp_path / "only_epoch.pth")
    with pytest.raises(UserError, match="no dictionary of tensors"):
        read_checkpoint(tmp_path / "only_epoch.pth")


def test_clip_file_fills_the_spatial_expert_only(network, tmp_path):
    expected = clip_file(network, tmp_path / "clip.pt")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    load_experts(network, spatial=tmp_path / "clip.pt")
    for name, tensor in network.state_dict().items():
        short = name.removeprefix("experts.spatial.")
        assert torch.equal(tensor, expected[short] if short in expected else before[name]), name


@pytest.mark.parametrize(
    ("norm", "prefix"),
    [("norm", "encoder."), ("norm", ""), ("fc_norm", "")],
    ids=["pre-trained", "plain", "fine-tuned"],
)
def test_videomae_file_fills_the_temporal_expert(network, tmp_path, norm, prefix):
    expected, theirs = videomae_tensors(network, norm=norm, prefix=prefix)
    decoder = {"decoder.head.weight": torch.ones(1), "mask_token": torch.ones(1), "head.weight": torch.ones(5, 32)}
    torch.save({"model": {**theirs, **decoder, "encoder_to_decoder.weight": torch.ones(1)}}, tmp_path / "mae.pth")
    load_experts(network, temporal=tmp_path / "mae.pth")
    for name, tensor in expected.items():
        assert torch.equal(network.experts["temporal"].get_parameter(name), tensor)


def test_two_final_norms_are_ambiguous(network, tmp_path):
    _, theirs = videomae_tensors(network, norm="norm", prefix="")
    torch.save({**theirs, "fc_norm.weight": torch.ones(32)}, tmp_path / "mae.pth")
    with pytest.raises(UserError, match=r"both 'norm\.weight' and 'fc_norm\.weight'"):
        load_experts(network, temporal=tmp_path / "mae.pth")


def test_weights_of_another_model_are_refused_by_name(network, tmp_path):
    clip_file(network, tmp_path / "clip.pt")
    with pytest.raises(UserError) as error:
        load_experts(network, temporal=tmp_path / "clip.pt")
    message = str(error.value)
    assert "clip.pt for the temporal expert" in message
    assert "missing: blocks.0.attention.project.bias" in message
    assert "unexpected: input_resolution" in message


def test_weights_of_another_resolution_are_refused(network, tmp_path):
    clip_file(
        build_cast(CastSize(img_size=32, patch_size=8, num_frames=4, width=32, depth=2, num_heads=2), {"label": 5}),
        tmp_path / "clip.pt",
    )
    with pytest.raises(UserError, match=r"embedding\.positions \(17, 32\) where the model has \(5, 32\)"):
        load_experts(network, spatial=tmp_path / "clip.pt")


def test_fingerprint_follows_frozen_weights_and_nothing_else(network):
    network.freeze()
    first = frozen_fingerprint(network)
    with torch.no_grad():
        network.get_parameter("head.classify.label.weight").add_(1)
    assert frozen_fingerprint(network) == first
    with torch.no_grad():
        network.get_parameter("experts.spatial.blocks.0.mlp.fc1.weight")[0, 0] += 1e-3
    assert frozen_fingerprint(network) != first
    # Half-precision weights have a fingerprint of their own.
    half = frozen_fingerprint(network.bfloat16())
    assert len(half) == 64
    assert half != first
