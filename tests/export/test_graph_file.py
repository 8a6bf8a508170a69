"""A graph file computes what the network does, from uint8 frames and samples, for any number of clips."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from rich.console import Console

from cast_ray.cli import main
from cast_ray.data.inputs import InputMaker
from cast_ray.errors import UserError
from cast_ray.export import agreement, onnx_model
from cast_ray.export.agreement import largest_difference
from cast_ray.export.fold import fold
from cast_ray.export.graph import GraphRunner, trace, write_pt2
from cast_ray.export.graph_file import write_graph
from cast_ray.export.merge import export
from cast_ray.export.onnx_model import OnnxRunner, write_onnx
from cast_ray.export.serving import Serving, media_of, random_media
from cast_ray.models.assemble import assemble
from cast_ray.models.named import NAMED
from cast_ray.weights.moved import MovedWeights


def quiet() -> Console:
    return Console(file=io.StringIO())


def one_block(name):
    """A named network cut to one block and few pixels, in which nothing is zero."""
    spec = NAMED[name]
    spec = dataclasses.replace(
        spec,
        experts={key: dataclasses.replace(expert, depth=1) for key, expert in spec.experts.items()},
        exchanges=tuple(dataclasses.replace(exchange, blocks=None) for exchange in spec.exchanges),
        video=spec.video.resized(image_size=16, num_frames=4),
        audio=dataclasses.replace(spec.audio, frames=48),
    )
    torch.manual_seed(4)
    network = assemble(spec, {"verb": 5, "noun": 3})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    """The ONNX file of a network that sees and hears, the network, and its inputs' names."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    serving = Serving(one_block("ca2st_tiny_clock"))
    write_onnx(trace(Serving(fold(serving.network))), {"cast_ray": '{"a": "ö"}'}, path)
    return path, serving


def test_serving_gives_the_logits_of_the_evaluation_path(synthetic_batch):
    """The preprocessing inside is that of `InputMaker`, with and without sound."""
    network = one_block("ca2st_tiny_clock")
    batch = synthetic_batch(network.spec)
    expected = network(InputMaker(network.spec, torch.device("cpu")).evaluation(batch))
    found = Serving(network)(**{name: torch.from_numpy(batch[name]) for name in media_of(network.spec)})
    assert found.keys() == {"logits_verb", "logits_noun"}
    assert all(torch.equal(found[f"logits_{field}"], logits) for field, logits in expected.items())


@pytest.fixture
def synthetic_batch():
    """Makes a batch as `ClipLoader` does."""

    def make(spec):
        media = {name: medium.numpy() for name, medium in random_media(spec, 3).items()}
        return {"clip_id": np.array(["a", "b", "c"], dtype=object), **media}

    return make


@pytest.fixture(scope="module")
def cast():
    """CAST, and its trace, which takes longer than anything that is done with it."""
    serving = Serving(one_block("cast_tiny"))
    return serving, trace(serving)


@pytest.mark.parametrize("name", ["cava_tiny", "msca_kv_tiny", "cast_tiny_eva"])
def test_pt2_agrees_with_the_network_for_several_batch_sizes(name, tmp_path):
    serving = Serving(one_block(name))
    write_pt2(trace(serving), {"a": "{}"}, tmp_path / "model.pt2")
    assert largest_difference(serving, GraphRunner(tmp_path / "model.pt2"), what="it") < 1e-6


def test_onnx_agrees_with_the_network_for_several_batch_sizes(cast, tmp_path):
    serving, program = cast
    write_onnx(program, {}, tmp_path / "model.onnx")
    assert largest_difference(serving, OnnxRunner(tmp_path / "model.onnx"), what="it") < 1e-5


def test_folded_onnx_hears_and_tells_the_time(onnx_file):
    path, serving = onnx_file
    assert largest_difference(serving, OnnxRunner(path), what="it") < 1e-5


def test_onnx_file_says_what_it_takes_and_nothing_of_this_machine(onnx_file, request):
    path, serving = onnx_file
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"cast_ray": '{"a": "ö"}'}
    assert str(request.config.rootpath).encode() not in path.read_bytes()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    media = media_of(serving.network.spec)
    assert [(x.name, tuple(x.shape)) for x in session.get_inputs()] == [
        (name, ("batch", *medium.shape)) for name, medium in media.items()
    ]
    assert [(x.name, x.shape) for x in session.get_outputs()] == [
        ("logits_verb", ["batch", 5]),
        ("logits_noun", ["batch", 3]),
    ]


def test_pt2_holds_no_pickled_weights_and_nothing_of_this_machine(cast, tmp_path, request):
    """What torch.export.load would unpickle without restraint is not in our files; the numbers are the network's."""
    serving, program = cast
    write_pt2(program, {"a": '{"b": 1}'}, tmp_path / "model.pt2")
    assert largest_difference(serving, GraphRunner(tmp_path / "model.pt2"), what="it") < 1e-6
    extra = {"a.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert extra["a.json"] == '{"b": 1}'
    with zipfile.ZipFile(tmp_path / "model.pt2") as file:
        everything = {info.filename: file.read(info) for info in file.infolist()}
    for kind in ("weights", "constants"):
        (listing,) = (text for name, text in everything.items() if name.endswith(f"model_{kind}_config.json"))
        assert not any(entry["use_pickle"] for entry in json.loads(listing)["config"].values())
    assert not any(str(request.config.rootpath).encode() in content for content in everything.values())


def test_graph_that_answers_otherwise_is_not_written(monkeypatch, small_run, tmp_path):
    class Wrong(GraphRunner):
        def __call__(self, media):
            return {name: logits + 0.01 for name, logits in super().__call__(media).items()}

    monkeypatch.setattr("cast_ray.export.graph_file.GraphRunner", Wrong)
    with pytest.raises(
        UserError, match=r"the torch-export graph differs from the network by 0\.01.*nothing was written"
    ):
        write_graph(str(small_run.checkpoint), str(tmp_path / "model.pt2"), form="torch-export", console=quiet())
    assert not list(tmp_path.glob("model*"))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda _: {"logits_label": torch.zeros(1, 2)}, "answers"),
        (lambda media: {name: torch.full((len(media["frames"]), n), torch.nan) for name, n in SHAPES}, "differs"),
        (lambda _: 1 / 0, "fails with 1 clips"),
    ],
)
def test_agreement_finds_whatever_else_is_wrong(answer, message):
    with pytest.raises(UserError, match=message):
        largest_difference(Serving(one_block("spatial_tiny")), answer, what="it")


SHAPES = (("logits_verb", 5), ("logits_noun", 3))


def test_large_logits_may_differ_in_proportion():
    serving = Serving(one_block("spatial_tiny"))
    with torch.no_grad():
        serving.network.head.classify["verb"].weight.mul_(1e4)
    media = random_media(serving.network.spec, 1, seed=1)
    assert serving(**media)["logits_verb"].abs().max() > 100
    rounding = 1 + agreement.TOLERANCE / 2
    run = lambda media: {name: logits * rounding for name, logits in serving(**media).items()}  # noqa: E731
    assert largest_difference(serving, run, what="it") > agreement.TOLERANCE


@pytest.fixture
def small_run(make_run):
    return make_run(name="msca_kv_tiny", files=False, train_experts=True)


def test_command_writes_graphs_from_run_and_exported_file(small_run, tmp_path, monkeypatch, capsys):
    """Both say how far they are from the network, and hold what the exported file says of itself."""
    exported = str(tmp_path / "model.safetensors")
    export(str(small_run.checkpoint), exported, moved=MovedWeights(), console=quiet())
    for source, form, output in (
        (str(small_run.folder), "onnx", str(tmp_path / "a.onnx")),
        (exported, "torch-export", str(tmp_path / "b.pt2")),
    ):
        monkeypatch.setattr(sys, "argv", ["cast-ray", "export", source, "--format", form, "-o", output])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        assert (stopped.value.code, err.strip()) == (0, "")
        assert f"{output}: msca_kv_tiny, 3 classes (label), {form}" in out
        assert "largest difference from the network" in out
    extra = {"cast_ray.json": "", "interface.json": ""}
    torch.export.load(tmp_path / "b.pt2", extra_files=extra)
    notes = {entry.key: entry.value for entry in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert {f"{name}.json": text for name, text in notes.items()} == extra
    interface, contents = json.loads(notes["interface"]), json.loads(notes["cast_ray"])
    assert interface["outputs"]["logits_label"]["classes"] == ["up", "down", "öffnen"]
    assert interface["inputs"]["frames"]["shape"] == ["batch", 4, 16, 16, 3]
    assert contents["pixels"]["mean"] == [0.5, 0.5, 0.5]
    assert contents["views"]["sampling"]["num_frames"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "onnx", "-o", "model.pt2"], r"give a name that ends in \.onnx"),
        (["--format", "torch-export", "-o", "model.onnx"], r"give a name that ends in \.pt2"),
        (["--format", "onnx", "-o", "model.onnx", "--dtype", "bf16"], "goes with --format safetensors only"),
    ],
)
def test_command_refuses_what_does_not_fit_together(run, tmp_path, monkeypatch, capsys, arguments, message):
    from cast_ray.export import command

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        command.main([str(run.folder), *arguments])


def test_missing_libraries_are_named_with_the_extra(run, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_model.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(UserError, match=r"ONNX needs onnxruntime.*cast-ray\[onnx\]"):
        write_graph(str(run.checkpoint), str(tmp_path / "model.onnx"), form="onnx", console=quiet())


def test_network_too_large_for_one_onnx_file_is_refused_before_work():
    with torch.device("meta"):
        network = assemble(NAMED["cast_large_patch14_224"], {"label": 174})
    with pytest.raises(UserError, match=r"2\.8 GiB, one ONNX file holds 2; use --format torch-export"):
        onnx_model.check_size(Serving(network))


def test_weights_flags_do_not_go_with_an_exported_file(run, tmp_path):
    export(str(run.checkpoint), str(tmp_path / "model.safetensors"), moved=MovedWeights(), console=quiet())
    with pytest.raises(UserError, match=r"--weights\.spatial is given, but .* holds all weights"):
        write_graph(
            str(tmp_path / "model.safetensors"),
            str(tmp_path / "model.pt2"),
            form="torch-export",
            moved=MovedWeights(spatial="x.pth"),
            console=quiet(),
        )
