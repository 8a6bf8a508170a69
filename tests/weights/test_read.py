"""Checkpoint files and folders: what is read, what is refused, and that the reader never runs what it reads."""

from __future__ import annotations

import argparse
import json
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cast_ray.errors import UserError
from cast_ray.weights.read import read_checkpoint, read_settings

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.half)}


def same(found, expected=TENSORS):
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("wrap", [None, "model", "module", "state_dict"])
def test_torch_files_are_read_bare_or_wrapped(tmp_path, wrap):
    path = tmp_path / "file.pth"
    arguments = argparse.Namespace(lr=0.1, data="somewhere")
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))]).state_dict()
    torch.save(TENSORS if wrap is None else {"optimizer": optimizer, wrap: TENSORS, "args": arguments}, path)
    assert same(read_checkpoint(path))


def test_files_of_old_torch_are_read(tmp_path):
    torch.save({"model": TENSORS}, tmp_path / "file.pth", _use_new_zipfile_serialization=False)
    assert same(read_checkpoint(tmp_path / "file.pth"))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_data_parallel_training_and_compilation_are_removed(tmp_path, prefix):
    torch.save({prefix + name: tensor for name, tensor in TENSORS.items()}, tmp_path / "file.pt")
    assert same(read_checkpoint(tmp_path / "file.pt"))


def test_safetensors_and_arrays_are_read(tmp_path):
    save_file(TENSORS, tmp_path / "file.safetensors")
    assert same(read_checkpoint(tmp_path / "file.safetensors"))
    np.savez(tmp_path / "file.npz", **{name: tensor.numpy() for name, tensor in TENSORS.items()})
    assert same(read_checkpoint(tmp_path / "file.npz"))


def test_folder_prefers_the_format_without_pickle(tmp_path):
    torch.save({"other": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"max_length": 7}')
    assert same(read_checkpoint(tmp_path))
    assert read_settings(tmp_path) == read_settings(tmp_path / "model.safetensors") == {"max_length": 7}


@pytest.mark.parametrize(("name", "save"), [("model.safetensors", save_file), ("pytorch_model.bin", torch.save)])
def test_folder_with_parts_is_read_whole(tmp_path, name, save):
    stem, suffix = name.split(".")
    parts = {key: f"{stem}-0000{i}-of-00002.{suffix}" for i, key in enumerate(TENSORS, start=1)}
    for key, part in parts.items():
        save({key: TENSORS[key]}, tmp_path / part)
    (tmp_path / f"{name}.index.json").write_text(json.dumps({"weight_map": parts}))
    assert same(read_checkpoint(tmp_path))
    (tmp_path / parts["b"]).unlink()
    with pytest.raises(UserError, match=r"00002-of-00002.*missing"):
        read_checkpoint(tmp_path)


def test_index_cannot_lead_out_of_its_folder(tmp_path):
    save_file(TENSORS, tmp_path / "secret.safetensors")
    (tmp_path / "inside").mkdir()
    index = {"weight_map": {"a": "../secret.safetensors"}}
    (tmp_path / "inside/model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"names '\.\./secret\.safetensors'"):
        read_checkpoint(tmp_path / "inside")


def test_folder_that_does_not_tell_is_refused(tmp_path):
    with pytest.raises(UserError, match="no weights file"):
        read_checkpoint(tmp_path)
    torch.save(TENSORS, tmp_path / "only.pth")
    assert same(read_checkpoint(tmp_path))
    torch.save(TENSORS, tmp_path / "another.pth")
    with pytest.raises(UserError, match=r"several weights files \['another\.pth', 'only\.pth'\]"):
        read_checkpoint(tmp_path)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_malicious_pickles_are_refused_with_the_way_to_convert_and_not_run(tmp_path):
    trace = tmp_path / "was_executed"
    torch.save({"model": TENSORS, "args": Malicious(trace)}, tmp_path / "zip.pth")
    torch.save({"args": Malicious(trace)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.bin").write_bytes(pickle.dumps(Malicious(trace), protocol=2))
    np.savez(tmp_path / "arrays.npz", a=np.array([Malicious(trace)], dtype=object))
    for name in ("zip.pth", "old.pth", "bare.bin"):
        with pytest.raises(UserError, match=rf"{name} is refused(.|\n)*save_file"):
            read_checkpoint(tmp_path / name)
    with pytest.raises(UserError, match=r"arrays\.npz is not a file of plain NumPy arrays"):
        read_checkpoint(tmp_path / "arrays.npz")
    assert not trace.exists()
    # The payload is a working one.
    pickle.loads((tmp_path / "bare.bin").read_bytes())
    assert trace.exists()


@pytest.mark.parametrize("name", ["text.pth", "text.safetensors", "text.npz", "empty.pt"])
def test_files_that_are_no_checkpoints_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"" if name == "empty.pt" else b"not a checkpoint")
    with pytest.raises(UserError, match=name):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors", "cut.npz"])
def test_files_that_were_cut_off_are_named(tmp_path, name, share):
    path = tmp_path / name
    tensors = {str(i): torch.randn(100) for i in range(20)}
    if name.endswith("npz"):
        np.savez(path, **{key: tensor.numpy() for key, tensor in tensors.items()})
    else:
        (torch.save if name.endswith("pth") else save_file)(tensors, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=name):
        read_checkpoint(path)


def test_missing_file_and_file_without_tensors_are_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.pth does not exist"):
        read_checkpoint(tmp_path / "absent.pth")
    torch.save({"epoch": 3}, tmp_path / "only_epoch.pth")
    with pytest.raises(UserError, match=r"no dictionary of tensors.*only \['epoch'\]"):
        read_checkpoint(tmp_path / "only_epoch.pth")


@pytest.mark.parametrize("name", ["x.pth", "x.bin", "x.safetensors", "x.npz"])
def test_pointer_of_git_lfs_is_told(tmp_path, name):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(UserError, match=r"not a checkpoint \(git-lfs pointer: run `git lfs pull`"):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("content", [b"<html>404</html>", b"\x80\x02not a pickle", b"version 1", b""])
def test_what_is_no_checkpoint_is_not_called_a_matter_of_trust(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"not a checkpoint") as error:
        read_checkpoint(tmp_path / "x.pth")
    assert "weights_only" not in str(error.value)


def test_advice_of_torch_is_not_repeated_but_what_it_refuses(tmp_path):
    torch.save({"model": TENSORS, "args": Malicious(tmp_path / "trace")}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"more than tensors and plain data \(posix\.mkdir\)") as error:
        read_checkpoint(tmp_path / "x.pth")
    assert "Re-running" not in str(error.value)
    assert "default value" not in str(error.value)


@pytest.mark.parametrize("other", ["module.a", "_orig_mod.a", "module._orig_mod.a"])
def test_tensors_that_only_a_prefix_tells_apart_are_refused(tmp_path, other):
    torch.save({"a": torch.ones(1), "module.b": torch.ones(1), other: torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"1 tensors both with and without the prefixes .*\['a'\]"):
        read_checkpoint(tmp_path / "x.pth")
