"""Settings of the programs that keep the figures of runs."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TrackingConfig"]


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Which programs keep the run's figures beside TensorBoard."""

    mlflow: str | None = None
    """MLflow's tracking URI (http://host:5000, sqlite:////path/mlflow.db), or a folder for a database; None: no MLflow.
    The experiment is that of MLFLOW_EXPERIMENT_NAME, or cast_ray."""
    wandb: str | None = None
    """Project on Weights & Biases; None: no W&B. WANDB_MODE=offline and its other variables hold."""
