"""Who watches a run, and what is refused before it starts."""

from __future__ import annotations

import dataclasses
import importlib.util

import pytest

from cast_ray.config import RunConfig, TrackingConfig
from cast_ray.errors import UserError
from cast_ray.recipes import RECIPES
from cast_ray.watching import watchers as module
from cast_ray.watching.identity import known_id, remember_id
from cast_ray.watching.lines import Lines
from cast_ray.watching.panel import Panel
from cast_ray.watching.startup import Startup
from cast_ray.watching.watchers import check_tracking, watchers


def config(storage, **tracking: str) -> RunConfig:
    return dataclasses.replace(RECIPES["ssv2"](), name="run", storage=str(storage), tracking=TrackingConfig(**tracking))


@pytest.mark.parametrize("library", ["mlflow", "wandb"])
def test_a_missing_library_is_refused_with_the_command_that_installs_it(library, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == library else find(name))
    check_tracking(config(tmp_path))
    with pytest.raises(UserError, match=rf"pip install 'cast-ray\[{library}\]'"):
        check_tracking(config(tmp_path, **{library: "place"}))


def test_a_server_that_is_not_there_is_refused_only_for_a_new_run(tmp_path):
    settings = config(tmp_path, mlflow="http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"tracking\.mlflow is 'http://127\.0\.0\.1:9', and that cannot be used"):
        check_tracking(settings)
    remember_id(f"{tmp_path}/run", "mlflow", "abc")
    check_tracking(settings)


def test_a_tracker_that_cannot_be_opened_is_left_out_with_a_warning(tmp_path, log, monkeypatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise ConnectionError("[Errno 111] refused")

    refuse.name = "MLflow"
    monkeypatch.setattr(module, "MlflowRun", refuse)
    settings = config(tmp_path, mlflow="somewhere")
    watching = watchers(settings, log, folder=f"{tmp_path}/run", steps=10, startup=Startup(0.0))
    assert len(watching) == 2  # the log and TensorBoard
    assert "MLflow cannot be reached ([Errno 111] refused); the run goes on without it" in log.file.getvalue()
    for watcher in watching:
        watcher.close()


def test_a_terminal_gets_the_panel_and_a_pipe_lines(tmp_path, terminal, log):
    for console, expected in ((terminal, Panel), (log, Lines)):
        watching = watchers(config(tmp_path), console, folder=f"{tmp_path}/run", steps=10, startup=Startup(0.0))
        assert isinstance(watching[0], expected)
        for watcher in watching:
            watcher.close()


def test_a_run_is_known_by_the_same_ids_wherever_its_folder_is(tmp_path, s3_bucket):
    for folder in (str(tmp_path / "runs" / "new"), f"{s3_bucket}/runs/new"):
        assert known_id(folder, "mlflow") is None
        remember_id(folder, "mlflow", "1")
        remember_id(folder, "wandb", "2")
        assert [known_id(folder, program) for program in ("mlflow", "wandb")] == ["1", "2"]
