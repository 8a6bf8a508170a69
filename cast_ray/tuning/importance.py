"""How much each varied setting mattered for the score, by Optuna's fANOVA (Hutter et al., ICML 2014)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cast_ray.tuning.results import TrialResult

__all__ = ["importance"]

FEWEST = 8
"""Trials below which nothing can be said."""


def importance(trials: Sequence[TrialResult], fields: Sequence[str]) -> Mapping[str, float]:
    """Setting -> share of importance; the shares add up to 1. Empty for fewer than `FEWEST` trials.

    Args:
        trials: with scores.
        fields: dotted names of the varied settings.
    """
    if len(trials) < FEWEST:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spread = {name: _distribution([trial.values.get(name) for trial in trials]) for name in fields}
    varied = {name: found for name, found in spread.items() if found is not None}
    if not varied:
        return {}
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        values = {name: _plain(trial.values.get(name)) for name in varied}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=varied, value=trial.best))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(varied)))


def _distribution(values: Sequence[Any]) -> Any:
    """What the values may have been drawn from; None if they are all the same."""
    import optuna

    plain = [_plain(value) for value in values]
    if len(set(plain)) < 2:
        return None
    if all(isinstance(value, float) for value in plain):
        log = min(plain) > 0 and max(plain) > 20 * min(plain)
        return optuna.distributions.FloatDistribution(min(plain), max(plain), log=log)
    if all(isinstance(value, int) and not isinstance(value, bool) for value in plain):
        return optuna.distributions.IntDistribution(min(plain), max(plain))
    return optuna.distributions.CategoricalDistribution(sorted(set(plain), key=str))


def _plain(value: Any) -> Any:
    """Optuna takes numbers, texts, truth values and None."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
