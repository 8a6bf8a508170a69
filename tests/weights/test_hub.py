"""Weights by name: fetched once into a folder, complete before visible, and found there without a network."""

from __future__ import annotations

import errno
import hashlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from cast_ray.errors import UserError
from cast_ray.models.spec import CLIP
from cast_ray.weights import hub
from cast_ray.weights.hub import Repository, choose_file, fetch, is_name, locate, repository_of
from cast_ray.weights.load import load_experts
from cast_ray.weights.read import read_checkpoint

REVISION = "0123456789abcdef0123456789abcdef01234567"
TENSORS = {"a": torch.arange(4.0), "b": torch.ones(2, 3)}


class FakeHub:
    """The part of the Hugging Face hub's interface that a download of a model needs, on this machine."""

    def __init__(self):
        self.repos: dict[str, dict[str, bytes]] = {}
        self.wrong_hashes = False
        self.requests: list[str] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                fake.answer(self, body=True)

            def do_HEAD(self):
                fake.answer(self, body=False)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request, *, body):
        path = request.path.partition("?")[0]
        self.requests.append(f"{request.command} {path}")
        content, headers = self.content(path)
        request.send_response(404 if content is None else 200)
        for name, value in {**headers, "Content-Length": str(len(content or b""))}.items():
            request.send_header(name, value)
        request.end_headers()
        if body and content is not None:
            request.wfile.write(content)

    def content(self, path):
        owner, name = path.removeprefix("/api/models/").strip("/").split("/")[:2]
        files = self.repos.get(f"{owner}/{name}")
        if files is None:
            return None, {"X-Error-Code": "RepoNotFound"}
        if path.startswith("/api/models/"):
            siblings = [
                {"rfilename": file, "size": len(x), "lfs": {"sha256": self.sha256(x), "size": len(x), "pointerSize": 1}}
                for file, x in files.items()
            ]
            return json.dumps({"id": f"{owner}/{name}", "sha": REVISION, "siblings": siblings}).encode(), {}
        content = files.get(path.split(f"/resolve/{REVISION}/")[1])
        etag = hashlib.sha256(content or b"").hexdigest()
        return content, {"X-Repo-Commit": REVISION, "ETag": f'"{etag}"', "X-Linked-Size": str(len(content or b""))}

    def sha256(self, content):
        return hashlib.sha256(content + (b"!" if self.wrong_hashes else b"")).hexdigest()


@pytest.fixture
def fake(monkeypatch):
    fake = FakeHub()
    monkeypatch.setenv("HF_ENDPOINT", fake.endpoint)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


@pytest.fixture
def no_network(monkeypatch):
    """A hub at an address where nobody listens."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_name_is_fetched_once_and_then_found_without_a_network(fake, tmp_path, monkeypatch):
    files = {
        "model.safetensors": save(TENSORS),
        "pytorch_model.bin": b"pickle",
        "config.json": b"{}",
        "README.md": b"x",
    }
    fake.repos["owner/model"] = files
    path = fetch("owner/model", tmp_path)
    assert path == tmp_path / "owner/model"
    assert {file.name for file in path.iterdir()} == {"model.safetensors", "config.json", "source.json"}
    source = json.loads((path / "source.json").read_text())
    assert source["name"] == source["repository"] == "owner/model"
    assert source["revision"] == REVISION
    facts = source["files"]["model.safetensors"]
    content = files["model.safetensors"]
    assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    asked = len(fake.requests)
    monkeypatch.setenv("CAST_RAY_WEIGHTS", str(tmp_path))
    found = read_checkpoint(locate("owner/model"))
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert len(fake.requests) == asked


def test_copied_folder_serves_a_machine_without_network(fake, tmp_path, monkeypatch):
    fake.repos["owner/model"] = {"model.safetensors": save(TENSORS)}
    fetch("owner/model", tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert locate("owner/model", tmp_path / "there") == tmp_path / "there/owner/model"


def test_interrupted_copy_is_noticed(fake, tmp_path):
    fake.repos["owner/model"] = {"model.safetensors": save(TENSORS)}
    file = fetch("owner/model", tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"model\.safetensors is not complete .*fetch it again"):
        locate("owner/model", tmp_path)


def test_weights_in_parts_are_fetched_whole(fake, tmp_path):
    parts = {name: f"model-0000{i}-of-00002.safetensors" for i, name in enumerate(TENSORS, start=1)}
    files = {part: save({name: TENSORS[name]}) for name, part in parts.items()}
    files["model.safetensors.index.json"] = json.dumps({"weight_map": parts}).encode()
    fake.repos["owner/model"] = files
    assert read_checkpoint(fetch("owner/model", tmp_path)).keys() == TENSORS.keys()


def test_no_network_is_said_at_once_with_what_to_do(no_network, tmp_path):
    started = time.monotonic()
    with pytest.raises(UserError) as error:
        locate("MCG-NJU/videomae-base", tmp_path)
    assert time.monotonic() - started < 5
    message = str(error.value)
    assert f"weights 'MCG-NJU/videomae-base' are not in {tmp_path}" in message
    assert "`cast-ray weights fetch MCG-NJU/videomae-base --folder FOLDER`" in message
    assert "set CAST_RAY_WEIGHTS=FOLDER" in message


def test_hub_that_does_not_answer_is_given_up(tmp_path, monkeypatch):
    silent = ThreadingHTTPServer(
        ("127.0.0.1", 0), BaseHTTPRequestHandler, bind_and_activate=True
    )  # accepts, never serves
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.server_port}")
    monkeypatch.setattr(hub, "CONNECT_TIMEOUT", 0.3)
    started = time.monotonic()
    with pytest.raises(UserError, match="does not give them"):
        locate("owner/model", tmp_path)
    assert time.monotonic() - started < 5
    silent.server_close()


def test_unknown_name_is_said(fake, tmp_path):
    with pytest.raises(UserError, match=r"there is no 'owner/absent'.*weights list"):
        fetch("owner/absent", tmp_path)


def test_nothing_is_visible_before_it_is_complete(fake, tmp_path):
    fake.repos["owner/model"] = {"model.safetensors": save(TENSORS)}
    fake.wrong_hashes = True
    with pytest.raises(UserError, match="arrived damaged"):
        fetch("owner/model", tmp_path)
    assert not (tmp_path / "owner").exists()
    fake.wrong_hashes = False
    assert fetch("owner/model", tmp_path).is_dir()


def test_processes_that_ask_at_once_download_once(fake, tmp_path):
    fake.repos["owner/model"] = {"model.safetensors": save(TENSORS)}
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: fetch("owner/model", tmp_path), range(4)))
    assert paths == {tmp_path / "owner/model"}
    downloads = [request for request in fake.requests if request.startswith("GET /owner/model")]
    assert len(downloads) == 1


def test_expert_is_filled_by_name_and_its_activation_is_checked(fake, network_of, sizes, tmp_path):
    from cast_ray.weights.clip import KEY_MAP

    network = network_of(CLIP(**sizes))
    own = {name: torch.randn_like(x) for name, x in network.experts["spatial"].named_parameters()}
    own = {name: x for name, x in own.items() if "_adapter." not in name}
    fake.repos["timm/vit_base_patch16_clip_224.openai"] = {
        "model.safetensors": save({"wrong": torch.ones(1)}),
        "open_clip_model.safetensors": save(KEY_MAP.to_foreign(own)[0]),
    }
    notes = load_experts(network, {"spatial": "ViT-B-16/openai"}, folder=tmp_path)
    assert notes == ["experts.spatial: CLIP of OpenAI or open_clip, from ViT-B-16/openai"]
    assert all(torch.equal(network.experts["spatial"].get_parameter(name), x) for name, x in own.items())
    with pytest.raises(UserError, match="trained with the activation quick_gelu, the expert has gelu"):
        load_experts(network_of(CLIP(**sizes, activation="gelu")), {"spatial": "ViT-B-16/openai"}, folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "repo", "activation"),
    [
        ("ViT-B-16/openai", "timm/vit_base_patch16_clip_224.openai", "quick_gelu"),
        ("ViT-B-16/laion2b_s34b_b88k", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "gelu"),
        ("ViT-B-16-quickgelu/openai", "timm/vit_base_patch16_clip_224.openai", "quick_gelu"),
        ("MCG-NJU/videomae-base", "MCG-NJU/videomae-base", None),
    ],
)
def test_names_lead_to_repositories(name, repo, activation):
    repository = repository_of(name)
    assert (repository.repo, repository.activation) == (repo, activation)
    assert repository.files[0].endswith(".safetensors")


def test_formats_without_pickle_come_first_and_guesses_are_refused():
    repository = Repository(repo="owner/model", files=("model.safetensors", "pytorch_model.bin"))
    assert choose_file(repository, ["pytorch_model.bin", "model.safetensors"]) == "model.safetensors"
    assert choose_file(repository, ["x.pth", "x.safetensors"]) == "x.safetensors"
    assert choose_file(repository, ["notes.txt", "x.pth"]) == "x.pth"
    with pytest.raises(UserError, match=r"several weights files \['x\.pth', 'y\.pth'\]"):
        choose_file(repository, ["x.pth", "y.pth"])
    with pytest.raises(UserError, match="no weights file"):
        choose_file(repository, ["notes.txt"])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("ViT-B-16/openai", True),
        ("MIT/ast-finetuned-audioset-10-10-0.4593", True),
        ("timm/vit_base_patch16_224.augreg_in21k", True),
        ("weights/clip.safetensors", False),
        ("/absolute/path", False),
        ("../up", False),
        ("owner/..", False),
        ("a/b/c", False),
        ("one", False),
        (Path("ViT-B-16/openai"), False),
    ],
)
def test_names_are_told_from_paths(source, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert is_name(source) is expected
    (tmp_path / "ViT-B-16/openai").mkdir(parents=True)
    assert not is_name("ViT-B-16/openai")


def test_path_that_does_not_exist_is_said():
    with pytest.raises(UserError, match=r"nothing\.pth does not exist.*weights list"):
        locate("nothing.pth")


def own_folder(root, files):
    """FOLDER/owner/model as git or another downloader leaves it."""
    target = root / "owner/model"
    target.mkdir(parents=True)
    for name, content in files.items():
        (target / name).write_bytes(content)
    return target


def test_folder_that_others_made_is_used_and_not_touched(no_network, network_of, sizes, tmp_path):
    from cast_ray.weights.clip import KEY_MAP

    network = network_of(CLIP(**sizes))
    own = {n: x.detach() for n, x in network.experts["spatial"].named_parameters() if "_adapter." not in n}
    files = {"model.safetensors": save(KEY_MAP.to_foreign(own)[0]), "notes.txt": b"mine"}
    target = own_folder(tmp_path, files)
    notes = load_experts(network, {"spatial": "owner/model"}, folder=tmp_path)
    assert notes[0].endswith(f"from owner/model (in {target}, not fetched by this program)")
    assert {file.name: file.read_bytes() for file in target.iterdir()} == files


@pytest.mark.parametrize("files", [{"notes.txt": b"mine"}, {"a.pth": b"1", "b.pth": b"2"}], ids=["none", "several"])
def test_folder_that_others_made_without_usable_weights_is_refused_and_not_touched(fake, tmp_path, files):
    fake.repos["owner/model"] = {"model.safetensors": save(TENSORS)}
    target = own_folder(tmp_path, files)
    with pytest.raises(UserError, match=r"not fetched by this program and holds no usable weights"):
        fetch("owner/model", tmp_path)
    assert {file.name: file.read_bytes() for file in target.iterdir()} == files


def test_file_in_the_place_of_the_folder_is_refused_and_not_touched(fake, tmp_path):
    fake.repos["owner/model"] = {"model.safetensors": save(TENSORS)}
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner/model").write_bytes(b"mine")
    with pytest.raises(UserError, match="it is no folder"):
        fetch("owner/model", tmp_path)
    assert (tmp_path / "owner/model").read_bytes() == b"mine"


def test_folder_that_appears_during_the_download_is_not_touched(fake, tmp_path, monkeypatch):
    import huggingface_hub

    fake.repos["owner/model"] = {"model.safetensors": save(TENSORS)}
    download = huggingface_hub.hf_hub_download

    def and_meanwhile(*arguments, **options):
        own_folder(tmp_path, {"notes.txt": b"mine"})
        return download(*arguments, **options)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", and_meanwhile)
    with pytest.raises(UserError, match=r"cannot be written to"):
        fetch("owner/model", tmp_path)
    assert (tmp_path / "owner/model/notes.txt").read_bytes() == b"mine"


def test_empty_folder_is_filled(fake, tmp_path):
    fake.repos["owner/model"] = {"model.safetensors": save(TENSORS)}
    own_folder(tmp_path, {})
    assert read_checkpoint(fetch("owner/model", tmp_path)).keys() == TENSORS.keys()


def test_source_without_files_is_damaged(fake, tmp_path):
    own_folder(tmp_path, {"source.json": b'{"files": {}}'})
    with pytest.raises(UserError, match=r"source\.json is damaged"):
        fetch("owner/model", tmp_path)


def test_disk_that_is_full_is_not_blamed_on_the_hub(fake, tmp_path, monkeypatch):
    import huggingface_hub

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    fake.repos["owner/model"] = {"model.safetensors": save(TENSORS)}
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(UserError, match=r"cannot be written to .*No space left on device") as error:
        fetch("owner/model", tmp_path)
    assert "does not give" not in str(error.value)


def test_folder_that_cannot_be_made_is_not_blamed_on_the_hub(fake, tmp_path):
    fake.repos["owner/model"] = {"model.safetensors": save(TENSORS)}
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot be written to .*make room there, or choose another folder"):
        fetch("owner/model", tmp_path / "file/below")
