"""Export: one file is the model that was trained, bit for bit, and whatever is missing is named with its flag."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow.fs as pafs
import pytest
import safetensors.torch
import torch
from rich.console import Console

from cast_ray.errors import UserError
from cast_ray.export.load import load_exported
from cast_ray.export.merge import export
from cast_ray.models.spec import VideoInput
from cast_ray.training.checkpoint import read_run, read_state, write_checkpoint
from cast_ray.weights.moved import MovedWeights


def quiet() -> Console:
    return Console(file=io.StringIO())


def write(place, output, *, moved=MovedWeights(), **options):  # noqa: B008
    return export(str(place), str(output), moved=moved, console=quiet(), **options)


def logits(network, clip):
    with torch.inference_mode():
        return network(clip)["label"]


def parameters(network):
    return {name: p.detach() for name, p in network.named_parameters()}


def test_exported_network_has_the_logits_of_checkpoint_and_experts_bit_for_bit(run, clip, tmp_path):
    write(run.checkpoint, tmp_path / "model.safetensors")
    for path in run.files.values():
        path.unlink()
    exported = load_exported(tmp_path / "model.safetensors")
    assert torch.equal(logits(exported.network, clip), logits(run.best, clip))
    expected = parameters(run.best)
    assert parameters(exported.network).keys() == expected.keys()
    assert all(torch.equal(p, expected[name]) for name, p in exported.network.named_parameters())
    assert {name for name, p in exported.network.named_parameters() if p.requires_grad} == set(
        run.best.trainable_names()
    )
    assert not exported.network.training


@pytest.mark.parametrize("name", ["spatial_tiny", "audio_tiny", "ca2st_tiny_clock", "msca_kv_tiny"])
def test_models_of_all_kinds_come_back(make_run, tmp_path, name):
    run = make_run(name=name, files=False, train_experts=True, num_frames=8, image_size=32)
    write(run.checkpoint, tmp_path / "model.safetensors")
    exported = load_exported(tmp_path / "model.safetensors")
    assert (exported.contents.pixels is None, exported.contents.sound is None) == {
        "audio_tiny": (True, False),
        "ca2st_tiny_clock": (False, False),
    }.get(name, (False, True))
    expected = parameters(run.best)
    assert all(torch.equal(p, expected[name]) for name, p in exported.network.named_parameters())


def test_run_folder_means_its_best_checkpoint_and_the_latest_where_none_has_a_score(run, tmp_path):
    assert write(run.folder, tmp_path / "best.safetensors").checkpoint.endswith("checkpoint_1")
    for folder in run.folder.iterdir():
        path = folder / "state.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"validation": {}}))
    assert write(run.folder, tmp_path / "last.safetensors").checkpoint.endswith("checkpoint_2")
    (run.folder / "checkpoint_2" / "history.jsonl").unlink()  # half deleted
    assert write(run.folder, tmp_path / "whole.safetensors").checkpoint.endswith("checkpoint_1")


def test_file_says_how_to_feed_it_and_where_it_comes_from(run, tmp_path):
    write(run.checkpoint, tmp_path / "model.safetensors")
    contents = load_exported(tmp_path / "model.safetensors").contents
    state = read_state(run.checkpoint)
    assert contents.model == run.config.model
    assert contents.label_map == state.label_map
    assert contents.views.sampling.shape == (4, 16, 16, 3)
    assert (contents.views.temporal_views, contents.views.spatial_crops) == (
        run.config.test.temporal_views,
        run.config.test.spatial_crops,
    )
    assert (contents.pixels.mean, contents.pixels.std) == (VideoInput().mean, VideoInput().std)
    assert contents.sound is None
    prints = contents.fingerprints
    assert (prints.checkpoint, prints.frozen, prints.label_map) == (
        state.fingerprint,
        state.frozen,
        state.label_map.fingerprint,
    )


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("bf16", torch.bfloat16), ("float16", torch.float16)])
def test_half_formats_hold_the_rounded_weights_in_half_the_bytes(run, tmp_path, dtype, torch_dtype):
    """A float32 network cast to the format is the same as the exported one cast to it."""
    whole = write(run.checkpoint, tmp_path / "whole.safetensors")
    half = write(run.checkpoint, tmp_path / "half.safetensors", dtype=dtype)
    assert 2 * half.bytes == whole.bytes
    stored = safetensors.torch.load_file(tmp_path / "half.safetensors")
    assert {x.dtype for x in stored.values()} == {torch_dtype}
    network = load_exported(tmp_path / "half.safetensors").network
    expected = parameters(run.best)
    for name, p in network.named_parameters():
        assert p.dtype == torch.float32
        assert torch.equal(p.to(torch_dtype), expected[name].to(torch_dtype))


def test_same_checkpoint_makes_the_same_bytes(run, tmp_path):
    for name in ("one", "two"):
        write(run.checkpoint, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


def test_loading_leaves_the_random_numbers_of_the_program_alone(run, tmp_path):
    write(run.checkpoint, tmp_path / "model.safetensors")
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load_exported(tmp_path / "model.safetensors")
    assert torch.equal(torch.rand(4), expected)


def test_experts_that_moved_are_named_and_found_by_their_flag(run, clip, tmp_path):
    moved = run.files["temporal"].rename(tmp_path / "elsewhere.pth")
    with pytest.raises(UserError, match=r"weights\.temporal.*temporal\.pth does not exist.*--weights\.temporal PATH"):
        write(run.checkpoint, tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()
    write(run.checkpoint, tmp_path / "model.safetensors", moved=MovedWeights(temporal=str(moved)))
    assert torch.equal(logits(load_exported(tmp_path / "model.safetensors").network, clip), logits(run.best, clip))


def test_other_experts_than_in_training_are_refused(run, tmp_path):
    other = torch.load(run.files["spatial"], weights_only=True)
    torch.save({name: x + 1e-6 for name, x in other.items()}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"the frozen experts have fingerprint.*--weights\.spatial"):
        write(run.checkpoint, tmp_path / "x.safetensors", moved=MovedWeights(spatial=str(tmp_path / "other.pth")))
    assert not (tmp_path / "x.safetensors").exists()


def test_weights_that_the_run_did_not_have_are_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"--weights\.audio is given, but the run read no such weights"):
        write(run.checkpoint, tmp_path / "x.safetensors", moved=MovedWeights(audio="x.pth"))


def test_run_that_trained_its_experts_needs_no_files_for_them(make_run, clip, tmp_path):
    run = make_run(train_experts=True)
    for path in run.files.values():
        path.unlink()
    write(run.checkpoint, tmp_path / "model.safetensors")
    assert torch.equal(logits(load_exported(tmp_path / "model.safetensors").network, clip), logits(run.best, clip))
    with pytest.raises(UserError, match="the checkpoint holds all weights; leave it away"):
        write(run.checkpoint, tmp_path / "x.safetensors", moved=MovedWeights(spatial="x.pth"))


def test_rounded_file_is_exported_again_in_full_format_and_can_be_read(run, clip, tmp_path):
    """Its fingerprint is that of the tensors as they are written, and not of those that were read."""
    write(run.checkpoint, tmp_path / "half.safetensors", dtype="bf16")
    write(tmp_path / "half.safetensors", tmp_path / "whole.safetensors")
    expected = logits(load_exported(tmp_path / "half.safetensors").network, clip)
    assert torch.equal(logits(load_exported(tmp_path / "whole.safetensors").network, clip), expected)


def test_existing_file_stays_unless_it_is_to_be_replaced(run, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match="is there already; give another name, or --force"):
        write(run.checkpoint, path)
    assert path.read_bytes() == b"mine"
    write(run.checkpoint, path, force=True)
    assert load_exported(path).label_map.names["label"] == ("up", "down", "öffnen")
    assert [found.name for found in tmp_path.glob("model*")] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("model.pt", r"give a name that ends in \.safetensors"),
        ("folder.safetensors", "is a folder; give the name of a file"),
        ("s3://model.safetensors", "names no file in a bucket"),
    ],
)
def test_bad_outputs_are_refused(run, tmp_path, monkeypatch, output, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UserError, match=message):
        write(run.checkpoint, output)


def test_folder_of_the_output_is_made(run, tmp_path):
    write(run.checkpoint, tmp_path / "a" / "b" / "model.safetensors")
    assert (tmp_path / "a" / "b" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "there is no checkpoint at '.*nowhere'"),
        ("empty", "empty' is neither a checkpoint.*nor a run"),
        ("runs", "runs' is neither a checkpoint.*nor a run"),
        ("spatial.pth", r"spatial\.pth' is a file, but not one that `cast-ray export` has written"),
    ],
)
def test_what_is_neither_checkpoint_nor_run_is_refused(run, tmp_path, place, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        write(tmp_path / place, tmp_path / "x.safetensors")


def test_numbers_that_float16_does_not_have_are_refused(run, tmp_path):
    saved = read_run(run.checkpoint)
    saved.tensors["weights"]["head.classify.label.bias"] += 1e6
    (tmp_path / "large").mkdir()
    write_checkpoint(tmp_path / "large", saved.state, saved.tensors, [])
    with pytest.raises(UserError, match=r"head\.classify\.label\.bias has values up to 1e\+06, too large for float16"):
        write(tmp_path / "large", tmp_path / "x.safetensors", dtype="float16")
    write(tmp_path / "large", tmp_path / "model.safetensors", dtype="bf16")


def test_from_and_to_object_storage(run, clip, tmp_path, s3_bucket):
    """A run there becomes a file there, which is read from there; the optimiser's state is not fetched."""
    storage, bucket = pafs.FileSystem.from_uri(s3_bucket)
    pafs.copy_files(str(run.folder), f"{bucket}/runs/one", pafs.LocalFileSystem(), storage)
    for checkpoint in ("checkpoint_1", "checkpoint_2"):
        with storage.open_output_stream(f"{bucket}/runs/one/{checkpoint}/optimizer.safetensors") as sink:
            sink.write(b"not read")
    file = write(f"{s3_bucket}/runs/one", f"{s3_bucket}/models/model.safetensors")
    assert file.checkpoint == f"{bucket}/runs/one/checkpoint_1"
    names = [info.base_name for info in storage.get_file_info(pafs.FileSelector(f"{bucket}/models"))]
    assert names == ["model.safetensors"]
    exported = load_exported(f"{s3_bucket}/models/model.safetensors")
    assert torch.equal(logits(exported.network, clip), logits(run.best, clip))
    with pytest.raises(UserError, match="is there already"):
        write(f"{s3_bucket}/runs/one", f"{s3_bucket}/models/model.safetensors")


def test_real_video_is_recognised_as_the_documentation_says(run, tmp_path, request):
    """The code of docs/weights.md runs on a real clip."""
    write(run.checkpoint, tmp_path / "model.safetensors")
    text = (request.config.rootpath / "docs" / "weights.md").read_text()
    code = text[text.index("from cast_ray.export.load") : text.index("```", text.index("from cast_ray.export.load"))]
    clip = request.config.rootpath / "tests" / "clips" / "flipping_pancake_k400.mkv"
    scope: dict[str, object] = {}
    exec(code.replace("model.safetensors", str(tmp_path / "model.safetensors")).replace("clip.mp4", str(clip)), scope)
    probabilities = scope["probabilities"]
    assert probabilities.shape == (3,)
    assert float(probabilities.sum()) == pytest.approx(1.0, abs=1e-5)
    assert scope["name"] == ("up", "down", "öffnen")[int(np.argmax(probabilities.numpy()))]
