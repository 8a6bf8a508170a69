"""What MLflow keeps of a run, read back from its database."""

from __future__ import annotations

import logging

import pytest
from mlflow import MlflowClient

from cast_ray.watching.mlflow_run import MlflowRun, check_mlflow


@pytest.fixture
def place(tmp_path, monkeypatch) -> str:
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return str(tmp_path / "mlflow")


def client(place: str) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{place}/mlflow.db")


def runs(place: str) -> list:
    experiment = client(place).get_experiment_by_name("cast_ray")
    return client(place).search_runs([experiment.experiment_id])


def history(place: str, name: str) -> list[tuple[int, float]]:
    (run,) = runs(place)
    return sorted((each.step, each.value) for each in client(place).get_metric_history(run.info.run_id, name))


def test_a_run_has_its_settings_figures_and_end_and_goes_on_as_the_same(place, tmp_path, caplog):
    """One test for all: to make a database takes a second."""
    settings = {f"group.name_{number}": number for number in range(120)} | {"long": "x" * 7000, "none": None}
    caplog.set_level(logging.INFO)
    check_mlflow(place)
    first = MlflowRun(place, folder=str(tmp_path / "run"), run="ours", config=settings)
    first.start(0)
    for step, loss in ((10, 1.0), (20, 2.0), (30, 3.0)):
        first.log(step, {"train/loss": loss, "train/epoch": step / 10})
    first.log(30, {"validation/top1": 0.5})
    (run,) = runs(place)
    assert run.info.status == "RUNNING"
    first.close(False)

    (run,) = runs(place)
    assert (run.info.run_name, run.info.status) == ("ours", "KILLED")
    assert run.data.params["group.name_119"] == "119"
    assert len(run.data.params["long"]) == 6000
    assert "none" not in run.data.params
    assert run.data.tags["cast_ray.folder"] == str(tmp_path / "run")

    again = MlflowRun(place, folder=str(tmp_path / "run"), run="ours", config=settings | {"group.name_0": 9})
    assert runs(place)[0].info.status == "RUNNING"
    again.start(20)
    for step, loss in ((30, 3.5), (40, 4.0)):
        again.log(step, {"train/loss": loss})
    again.close(True)
    assert history(place, "train/loss") == [(10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0)]
    assert history(place, "validation/top1") == [(30, 0.5)]
    assert runs(place)[0].info.status == "FINISHED"

    MlflowRun(place, folder=str(tmp_path / "other"), run="other", config={}).close(False)
    assert len(runs(place)) == 2
    assert not [record for record in caplog.records if record.name.startswith(("mlflow", "alembic"))]


def test_a_server_that_is_not_there_is_found_soon():
    with pytest.raises(Exception, match=r"127\.0\.0\.1"):
        check_mlflow("http://127.0.0.1:9")
