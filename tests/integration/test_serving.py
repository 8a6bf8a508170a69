"""The web service on a real cluster: what it answers to clips, garbage and a browser, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from cast_ray.config import ModelConfig, RunConfig, TestConfig
from cast_ray.data.order import Position
from cast_ray.inference import Recogniser
from cast_ray.labels import NOUN, VERB, LabelMap
from cast_ray.recipes.toy import toy
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import CheckpointState, write_checkpoint

if TYPE_CHECKING:
    from playwright.sync_api import Browser

REPOSITORY = Path(__file__).parents[2]
CLIPS = REPOSITORY / "tests" / "clips"
GOOD = CLIPS / "arm_wrestling_k400.mp4"
START_S = 240
PORT = 18_731


class Service:
    """A running jobs/serve.py."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON of an answer."""
        request = urllib.request.Request(f"{self.url}/{path}", data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def predict(self, body: bytes) -> tuple[int, dict[str, Any]]:
        return self.ask("predict?top=3", body, **{"Content-Type": "application/octet-stream"})

    def decoders(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            # Those of this service alone: its settings are in the command line.
            if "cast_ray.inference.decode_process" in words and '"longest_s": 12.0' in words[-1]:
                found.append(process)
        return found


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = ModelConfig(name="cast_tiny", num_frames=4, image_size=16, train_experts=True)
    config: RunConfig = replace(toy(), model=model, test=TestConfig(temporal_views=2, spatial_crops=3))
    label_map = LabelMap({VERB: ("cut", "wash", "open"), NOUN: ("onion", "pan", "door", "tap")})
    network, frozen = build_network(config.model, config.weights, label_map, seed=1)
    state = CheckpointState(
        position=Position(epoch=1),
        config=config.to_dict(),
        label_map=label_map,
        dataset="0123456789abcdef",
        frozen=frozen,
        validation={},
    )
    folder = tmp_path_factory.mktemp("run") / "checkpoint_1"
    folder.mkdir()
    write_checkpoint(folder, state, {"weights": {name: x.detach() for name, x in network.named_parameters()}}, [])
    return folder


@pytest.fixture(scope="module")
def service(head, cluster_environment: dict[str, str], checkpoint: Path, tmp_path_factory) -> Iterator[Service]:
    command = [sys.executable, "jobs/serve.py", "--checkpoint", str(checkpoint), "--port", str(PORT)]
    command += ["--max-mb", "2", "--max-seconds", "12", "--num-cpus", "0.5"]
    log = tmp_path_factory.mktemp("log") / "serve.log"
    environment = cluster_environment | {"RAY_ADDRESS": head.gcs}
    with log.open("w") as target:
        process = subprocess.Popen(
            command, env=environment, cwd=REPOSITORY, stdout=target, stderr=subprocess.STDOUT, text=True
        )
    try:
        deadline = time.monotonic() + START_S
        while "ready: " not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield Service(process, f"http://127.0.0.1:{PORT}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def test_good_clips_bad_clips_a_crash_a_browser_and_an_end(service: Service, checkpoint: Path, browser: Browser):
    good = GOOD.read_bytes()
    expected = Recogniser.load(checkpoint).predict(GOOD)

    status, answer = service.predict(good)
    assert status == 200
    assert (answer["seconds"], answer["views"]) == (10.0, 6)
    for field, scores in expected.top(3).items():
        assert [each["class"] for each in answer["top"][field]] == [score.name for score in scores]
        assert [each["probability"] for each in answer["top"][field]] == pytest.approx(
            [score.probability for score in scores], abs=1e-6
        )

    for body, wanted, reason in (
        ((CLIPS / "README.md").read_bytes(), 422, "it is no video"),
        (b"", 422, "the body is empty"),
        (good[:30_000], 422, "it is no video, or its beginning or index is missing"),
        ((CLIPS / "corrupted.mp4").read_bytes(), 422, "frames cannot be decoded"),
        ((CLIPS / "nasa_with_audio.mp4").read_bytes(), 422, "it lasts 13.0 s, at most 12 s"),
        (os.urandom(3_000_000), 413, "the file is larger than 2 MB"),
    ):
        status, answer = service.predict(body)
        assert (status, set(answer)) == (wanted, {"error", "hint"})
        assert reason in answer["error"]
    for path, headers, wanted in (
        ("predict?top=many", {}, 422),
        ("predict", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ("nothing", {}, 404),
    ):
        status, answer = service.ask(path, b"some", **headers)
        assert (status, set(answer)) == (wanted, {"error", "hint"})

    (decoder,) = service.decoders()
    decoder.send_signal(signal.SIGSEGV)
    status, answer = service.predict(good)
    assert status == 422
    assert "the decoder crashed" in answer["error"]
    status, answer = service.predict(good)
    assert status == 200
    assert answer["top"]["verb"][0]["class"] == expected.top(1)["verb"][0].name
    assert service.ask("health")[1]["limits"]["max_seconds"] == 12.0

    _try_the_page(service.url, browser)

    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(60) == 0
    _, left = psutil.wait_procs(service.decoders(), timeout=10)
    assert not left
    with pytest.raises(urllib.error.URLError, match=r"refused|404"):
        urllib.request.urlopen(f"{service.url}/health", timeout=5)


def _try_the_page(url: str, browser: Browser) -> None:
    """On a phone: a clip is uploaded and its classes appear, a text is refused, nothing overflows or complains."""
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.goto(url)
    page.wait_for_function("document.getElementById('model').textContent.includes('3 classes (verb)')")
    page.set_input_files("#file", str(GOOD))
    page.wait_for_selector("#answer:not([hidden])")
    shown = page.inner_text("#answer")
    assert all(word in shown for word in ("arm_wrestling_k400.mp4: 10.0 s, 6 views", "verb", "noun", "action"))
    assert page.locator("#answer .row").count() == 3 + 4 + 5
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert complaints == []
    page.set_input_files("#file", str(CLIPS / "README.md"))
    page.wait_for_selector("#error:not([hidden])")
    assert "it is no video" in page.inner_text("#error")
    assert page.locator("#answer").is_hidden()
    page.close()
