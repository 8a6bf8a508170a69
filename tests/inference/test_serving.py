"""What the service answers when it is itself at fault; the rest needs a cluster: tests/integration/test_serving.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient

from cast_ray.errors import UserError
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


def test_a_copy_without_a_model_says_so(tmp_path: Path):
    service = Service(str(tmp_path / "gone"), "cpu", torch.get_num_threads(), Limits())
    assert "there is no checkpoint at" in service.problem()
    with pytest.raises(Refused, match="the model could not be loaded: there is no checkpoint at") as refused:
        asyncio.run(service.health())
    assert refused.value.status == 503
