"""What the service answers, without a cluster; on one: tests/integration/test_serving.py."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from ray import serve
from starlette.requests import Request

from cast_ray.errors import UserError
from cast_ray.evaluation.trained import model_at
from cast_ray.inference import Recogniser, serving
from cast_ray.inference.serving import Limits, Refused, Service, app


@pytest.fixture
def client() -> TestClient:
    """Another application with the handlers of the service, and paths that fail."""
    other = FastAPI(exception_handlers=dict(app.exception_handlers))

    @other.get("/scores")
    def scores() -> None:
        raise UserError("the scores are not finite")

    @other.get("/defect")
    def defect() -> None:
        raise RuntimeError("secret")

    return TestClient(other, raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("scores", 500, "the scores are not finite"),
        ("defect", 500, "the service failed on this request"),
        ("nothing", 404, "Not Found"),
    ],
)
def test_every_answer_is_json_and_tells_nothing_of_the_inside(client: TestClient, path: str, status: int, said: str):
    answer = client.get(path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "hint"}
    assert answer.json()["error"] == said
    assert "secret" not in answer.text


def test_a_copy_without_a_model_says_so(run, tmp_path: Path):
    (tmp_path / "run").mkdir()
    shutil.copytree(run.checkpoint, tmp_path / "run" / "checkpoint_1")
    model = model_at(tmp_path / "run")
    (tmp_path / "run" / "checkpoint_1" / "weights.safetensors").write_bytes(b"cut")
    service = Service(model, "cpu", torch.get_num_threads(), Limits())
    assert "weights.safetensors" in service.problem()
    with pytest.raises(Refused, match=r"the model could not be loaded: .*weights\.safetensors") as refused:
        asyncio.run(service.health())
    assert refused.value.status == 503


@pytest.fixture(scope="module")
def service(run) -> Iterator[Service]:
    one = Service(model_at(run.folder), "cpu", torch.get_num_threads(), Limits(max_mb=0.5, max_queue=0))
    yield one
    one._decoder.close()


@pytest.fixture
def web(service: Service, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """The application as Ray Serve runs it in a replica."""
    monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(servable_object=service))
    return TestClient(app, raise_server_exceptions=False)


def send(client: TestClient, chunks: AsyncIterator[bytes]) -> httpx.Response:
    """POST a body that comes bit by bit."""

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(client.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as asker:
            return await asker.post("/predict", content=chunks)

    return asyncio.run(asyncio.wait_for(post(), 20))


def test_a_clip_is_answered_as_by_the_model_itself(web: TestClient, run, clips: Path):
    path = clips / "rotated_90.mov"
    answer = web.post("/predict?top=2", content=path.read_bytes())
    assert answer.status_code == 200
    assert answer.json()["top"] == Recogniser.load(run.folder).predict(path).to_dict(2)["top"]


def test_a_form_is_told_the_command_that_works_for_this_address(web: TestClient, clips: Path):
    with (clips / "rotated_90.mov").open("rb") as file:
        answer = web.post("/predict?top=2", files={"file": file})
    assert answer.status_code == 415
    assert answer.json()["error"] == "this is a form (multipart, curl -F), which is not read"
    command = "curl --data-binary @clip.mp4 'http://testserver/predict?top=2'"
    assert answer.json()["hint"] == f"send the file itself as the body: {command}"


def test_a_client_that_sends_a_byte_now_and_then_is_turned_away_and_a_slow_honest_one_is_not(
    web: TestClient, service: Service, clips: Path, monkeypatch: pytest.MonkeyPatch
):
    """Time is a hundredth of the real one."""
    monkeypatch.setattr(serving, "FIRST_S", 0.3)
    monkeypatch.setattr(serving, "LEAST_RATE", 20_000.0)
    content = (clips / "rotated_90.mov").read_bytes()

    async def drops() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.02)
            yield b"x"

    async def pieces() -> AsyncIterator[bytes]:
        size = -(-len(content) // 8)
        for start in range(0, len(content), size):
            await asyncio.sleep(0.1)
            yield content[start : start + size]

    refused = send(web, drops())
    assert refused.status_code == 408
    assert "the upload is too slow: " in refused.json()["error"]
    assert "send at least 20 kB/s" in refused.json()["hint"]
    assert service._inside == 0
    assert send(web, pieces()).status_code == 200


def test_no_upload_takes_longer_than_the_longest(web: TestClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serving, "UPLOAD_S", 0.4)

    async def steady() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.02)
            yield bytes(10_000)

    assert send(web, steady()).status_code == 408


def test_a_client_that_goes_away_is_no_fault_of_the_service(service: Service):
    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(Refused, match="the upload broke off") as refused:
        asyncio.run(service.predict(request))
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"", 422, "the body is empty"),
        (bytes(600_000), 413, "the file is larger than 0.5 MB"),
        (b"a list of things\n" * 99, 422, "it is no video"),
    ],
)
def test_garbage_is_answered_with_a_reason(web: TestClient, content: bytes, status: int, said: str):
    answer = web.post("/predict", content=content)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_a_full_queue_turns_away_and_says_when_to_come_back(web: TestClient, service: Service, monkeypatch):
    monkeypatch.setattr(service, "_inside", 1)
    answer = web.post("/predict", content=b"x")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
