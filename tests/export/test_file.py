"""The layout of an exported file: what the safetensors library would write, and every kind of damage refused."""

from __future__ import annotations

import io
import json

import pytest
import safetensors
import safetensors.torch
import torch
from rich.console import Console

from cast_ray.errors import UserError
from cast_ray.export.contents import to_json
from cast_ray.export.file import read_contents, write_file
from cast_ray.export.load import load_exported
from cast_ray.export.merge import export
from cast_ray.weights.moved import MovedWeights


@pytest.fixture
def exported(run, tmp_path):
    path = tmp_path / "model.safetensors"
    export(str(run.checkpoint), str(path), moved=MovedWeights(), console=Console(file=io.StringIO()))
    return path


def changed(path, change):
    """The file written by the library with other contents."""
    with safetensors.safe_open(path, framework="pt") as file:
        contents = json.loads(file.metadata()["cast_ray"])
    change(contents)
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors, path, metadata={"cast_ray": json.dumps(contents)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bytes_are_those_of_the_safetensors_library(exported, dtype):
    contents = read_contents(exported)
    draw = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(3, 5, generator=draw).to(dtype).T for name in ("b", "a.ü", "a")}
    tensors |= {"scalar": torch.tensor(2.0, dtype=dtype)}
    sink, sizes = io.BytesIO(), []
    write_file(sink, contents, tensors, wrote=sizes.append)
    plain = {name: x.contiguous() for name, x in tensors.items()}
    assert sink.getvalue() == safetensors.torch.save(plain, metadata={"cast_ray": to_json(contents)})
    assert sum(sizes) == sum(x.nbytes for x in tensors.values())


def test_one_flipped_bit_of_a_tensor_is_noticed(exported):
    content = bytearray(exported.read_bytes())
    content[-5] ^= 1
    exported.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged: its tensors have the fingerprint .* fetch it again"):
        load_exported(exported)


def test_cut_off_file_is_refused(exported):
    exported.write_bytes(exported.read_bytes()[:-100])
    with pytest.raises(UserError, match="is not a valid safetensors file"):
        load_exported(exported)


def test_other_format_version_is_refused_with_both_numbers(exported):
    changed(exported, lambda contents: contents.update(format_version=7))
    with pytest.raises(UserError, match=r"has export format 7, this program reads 1; export the checkpoint again"):
        load_exported(exported)


@pytest.mark.parametrize(
    "change",
    [
        lambda contents: contents.pop("views"),
        lambda contents: contents.pop("format_version"),
        lambda contents: contents.update(more=1),
        lambda contents: contents["model"].update(num_frames="four"),
    ],
    ids=["missing", "no version", "unknown", "type"],
)
def test_damaged_contents_are_refused(exported, change):
    changed(exported, change)
    with pytest.raises(UserError, match=r"says of itself is damaged: .* export the checkpoint again"):
        load_exported(exported)


def test_class_names_that_are_none_are_refused_with_the_entry(exported):
    changed(exported, lambda contents: contents["label_map"]["label"].insert(1, 7))
    with pytest.raises(UserError, match=r"the label map in .* has 7 as class 1 of 'label'; class names are strings"):
        load_exported(exported)


def test_other_class_names_are_refused(exported):
    changed(exported, lambda contents: contents["label_map"]["label"].reverse())
    with pytest.raises(UserError, match=r"the class names in .* are not those of its checkpoint"):
        load_exported(exported)


def test_model_that_takes_other_inputs_in_this_version_is_refused(exported):
    changed(exported, lambda contents: contents["pixels"].update(mean=[0.5, 0.5, 0.5]))
    with pytest.raises(UserError, match=r"written by cast_ray .* takes .*0\.5, 0\.5, 0\.5.* Use that version"):
        load_exported(exported)


@pytest.mark.parametrize(("name", "message"), [("nothing.safetensors", "does not exist"), ("x.pt", "is not a file of")])
def test_what_is_no_exported_file_is_refused(tmp_path, name, message):
    (tmp_path / "x.pt").write_bytes(b"x")
    with pytest.raises(UserError, match=message):
        load_exported(tmp_path / name)


def test_safetensors_of_others_are_no_exported_files(tmp_path):
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"format": "pt"})
    assert read_contents(tmp_path / "x.safetensors") is None
    with pytest.raises(UserError, match="is not a file of `cast-ray export`"):
        load_exported(tmp_path / "x.safetensors")
