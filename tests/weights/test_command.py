"""`cast-ray weights`: what it shows and lists, and that it fetches."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from cast_ray.errors import UserError
from cast_ray.models.assemble import assemble
from cast_ray.models.named import NAMED
from cast_ray.weights.clip import KEY_MAP
from cast_ray.weights.command import main
from cast_ray.weights.known import KNOWN

SIZE = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4}


def shown(capsys, *arguments):
    assert main(["show", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def clip_file(path):
    network = assemble(NAMED["spatial_tiny"], {"label": 5})
    tensors = {name: x for name, x in network.experts["spatial"].state_dict().items() if "_adapter." not in name}
    save_file({**KEY_MAP.to_foreign(tensors)[0], "visual.proj": torch.ones(64, 16)}, path)
    return path


def test_clip_file_is_described(capsys, tmp_path):
    found = shown(capsys, clip_file(tmp_path / "clip.safetensors"))
    assert found["layout"] == "CLIP of OpenAI or open_clip"
    expert = found["experts"][""]
    assert expert["families"] == ["CLIP"]
    assert (expert["width"], expert["depth"], expert["patch"], expert["grid"]) == (64, 3, [8, 8], [4, 4])
    assert {"spatial_tiny:spatial", "cast_tiny:spatial", "ca2st_tiny:spatial"} <= set(expert["models"])
    assert "cast_tiny:temporal" not in expert["models"]
    assert "cast_tiny_clip_clip:temporal" in expert["models"]
    assert found["types"] == ["float32"]
    assert found["tensors"] == 3 * 12 + 7 + 1


def test_fine_tuned_video_file_is_described(capsys, tmp_path):
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256}
    settings = VideoMAEConfig(image_size=32, patch_size=8, num_frames=8, num_labels=7, **sizes)
    VideoMAEForVideoClassification(settings).save_pretrained(tmp_path)
    capsys.readouterr()
    found = shown(capsys, tmp_path)
    assert found["layout"] == "VideoMAE of Hugging Face"
    expert = found["experts"][""]
    assert (expert["patch"], expert["grid"], expert["classes"]) == ([2, 8, 8], None, 7)
    assert "temporal_tiny:temporal" in expert["models"]


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "vit_base_patch14_reg4_dinov2"])
def test_timm_file_is_described(capsys, tmp_path, name):
    torch.save(timm.create_model(name, **SIZE).state_dict(), tmp_path / "vit.pth")
    expert = shown(capsys, tmp_path / "vit.pth")["experts"][""]
    assert expert["families"] == ["ViT", "TimmViT"]
    assert expert["grid"] == [4, 4]
    assert "framewise_tiny:spatial" in expert["models"]


def test_whole_network_is_described_by_role(capsys, tmp_path):
    network = assemble(NAMED["cava_tiny"], {"label": 5})
    torch.save(network.state_dict(), tmp_path / "own.pt")
    found = shown(capsys, tmp_path / "own.pt")
    assert found["layout"] == "a whole network of this project"
    assert {role: expert["patch"] for role, expert in found["experts"].items()} == {
        "audio": [16, 16],
        "spatial": [8, 8],
    }
    assert found["parameters"] == sum(x.numel() for x in network.parameters())


def test_table_says_the_same_in_words(capsys, tmp_path):
    assert main(["show", str(clip_file(tmp_path / "clip.safetensors"))]) == 0
    text = capsys.readouterr().out
    for part in ("CLIP of OpenAI or open_clip", "width, depth", "64, 3", "8 x 8", "4 x 4", "more"):
        assert part in text


def test_unknown_file_is_shown_with_its_names(capsys, tmp_path):
    torch.save({"conv1.weight": torch.ones(2)}, tmp_path / "resnet.pth")
    assert shown(capsys, tmp_path / "resnet.pth")["layout"] is None
    assert main(["show", str(tmp_path / "resnet.pth")]) == 0
    assert "conv1.weight" in capsys.readouterr().out


def test_list_tells_what_is_in_the_folder(capsys, tmp_path):
    here = tmp_path / "ViT-B-16/openai"
    here.mkdir(parents=True)
    (here / "clip.pt").write_bytes(b"12")
    (here / "source.json").write_text('{"files": {"clip.pt": {"bytes": 2}}}')
    assert main(["list", "--folder", str(tmp_path), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["ViT-B-16/openai"]["path"] == str(here)
    assert rows["MCG-NJU/videomae-base"]["path"] is None
    assert rows["MCG-NJU/videomae-base"]["licence"] == "CC BY-NC 4.0"
    assert main(["list", "--folder", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert all(f"{role} expert" in text for role in ("spatial", "temporal", "audio"))


def test_fetch_takes_names_only(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("cast_ray.weights.hub.fetch", lambda name, folder: asked.append((name, folder)) or tmp_path)
    assert main(["fetch", "a/b", "ViT-B-16/openai", "--folder", str(tmp_path)]) == 0
    assert asked == [("a/b", tmp_path), ("ViT-B-16/openai", tmp_path)]
    with pytest.raises(UserError, match=r"'file\.pth' is no name of weights"):
        main(["fetch", "file.pth"])


@pytest.mark.parametrize("command", ["fetch", "show", "list"])
def test_help_has_an_example(capsys, command):
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    assert done.value.code == 0
    assert f"cast-ray weights {command}" in capsys.readouterr().out


def test_mistakes_are_said(capsys):
    assert main([]) == 0
    assert "fetch NAME" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"unknown command 'weights download'; use one of"):
        main(["download"])
    with pytest.raises(UserError, match="does not exist"):
        main(["show", "absent.pth"])
    with pytest.raises(UserError, match=r"unknown flag --foldr; did you mean --folder"):
        main(["list", "--foldr", "x"])


@pytest.mark.parametrize("row", KNOWN, ids=lambda row: row.name)
def test_known_names_exist_where_a_library_knows_them_and_sizes_are_theirs(row):
    import open_clip

    owner, model = row.name.split("/")
    with torch.device("meta"):
        if open_clip.pretrained.get_pretrained_cfg(owner, model):
            foreign = open_clip.create_model(owner, pretrained=None, device="meta")
        elif owner == "timm":
            assert timm.get_pretrained_cfg(model).hf_hub_id == row.name
            foreign = timm.create_model(model)
        else:
            return
    assert sum(x.numel() for x in foreign.state_dict().values()) * 4e-6 == pytest.approx(row.megabytes, rel=0.01)


def test_fetch_without_names_is_a_mistake():
    with pytest.raises(UserError, match=r"nothing to fetch; give one or more names"):
        main(["fetch"])


def test_show_does_not_download(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("cast_ray.weights.hub._look_up", lambda _: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match=r"'owner/model' is not in .*; `cast-ray weights fetch owner/model` downloads"):
        main(["show", "owner/model", "--folder", str(tmp_path)])
    (tmp_path / "owner/model").mkdir(parents=True)
    clip_file(tmp_path / "owner/model/model.safetensors")
    assert shown(capsys, "owner/model", "--folder", tmp_path)["layout"] == "CLIP of OpenAI or open_clip"


@pytest.mark.parametrize("columns", ["80", "100", "200"])
def test_list_shows_the_value_that_the_option_takes(capsys, tmp_path, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["list", "--folder", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for row in KNOWN:
        assert row.name in text
        assert row.expert in text.replace(row.name, "")


def test_list_survives_a_folder_without_usable_weights(capsys, tmp_path):
    (tmp_path / "ViT-B-16/openai").mkdir(parents=True)
    (tmp_path / "ViT-B-16/openai/notes.txt").write_text("mine")
    assert main(["list", "--folder", str(tmp_path)]) == 0
    assert "holds no usable weights" in capsys.readouterr().out
