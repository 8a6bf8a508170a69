"""Search spaces: what is wrong with one is said before anything runs."""

from __future__ import annotations

import dataclasses

import pytest
from ray import tune

from cast_ray.config import RunConfig
from cast_ray.errors import UserError
from cast_ray.recipes.ek100 import ek100
from cast_ray.recipes.small import small
from cast_ray.recipes.toy import toy
from cast_ray.tuning.space import SPACES, check_space, read_space, with_settings


@pytest.fixture(scope="module")
def base() -> RunConfig:
    return small(ek100())


@pytest.mark.parametrize("name", SPACES)
def test_the_ready_spaces_fit_the_recipes(base, name):
    check_space(SPACES[name], base)
    check_space(SPACES[name], toy())


def test_settings_are_changed_by_their_dotted_names_and_nothing_else_is(base):
    changed = with_settings(base, {"optim.base-lr": 0.5, "model.options.down_ratio": 4, "optim.betas": (0.8, 0.9)})
    assert (changed.optim.base_lr, changed.model.options.down_ratio, changed.optim.betas) == (0.5, 4, (0.8, 0.9))
    back = with_settings(
        changed, {"optim.base_lr": base.optim.base_lr, "model.options.down_ratio": None, "optim.betas": [0.9, 0.98]}
    )
    assert back == base


def test_no_settings_change_nothing(base):
    assert with_settings(base, {}) == base


@pytest.mark.parametrize(
    ("name", "near"),
    [("optim.base_learning", "optim.base_lr"), ("model.drop_paths", "model.drop_path"), ("optim.lr", "optim.")],
)
def test_an_unknown_setting_is_named_with_those_like_it(base, name, near):
    with pytest.raises(UserError, match=rf"no setting '{name}'; did you mean .*{near}"):
        check_space({name: tune.choice([1, 2])}, base)


@pytest.mark.parametrize("name", ["optim", "model.options", "optim.base_lr.more", "qqqq"])
def test_a_section_or_nonsense_is_no_setting(base, name):
    with pytest.raises(UserError, match="there is no setting"):
        with_settings(base, {name: 1})


@pytest.mark.parametrize(
    ("name", "drawn", "value"),
    [
        ("optim.base_lr", tune.uniform(-1.0, 0.1), "-1.0"),
        ("model.drop_path", tune.uniform(0.0, 1.5), "1.5"),
        ("optim.epochs", tune.randint(0, 3), "0"),
        ("model.options.to_spatial", tune.choice(["time", "sideways"]), "'sideways'"),
        ("model.name", tune.grid_search(["cast_tiny", "cast_teeny"]), "'cast_teeny'"),
        ("augment.mixup_alpha", "much", "'much'"),
    ],
)
def test_an_impossible_value_anywhere_in_the_space_is_found_at_once(base, name, drawn, value):
    with pytest.raises(UserError, match=rf"the search space has {name} = {value}: "):
        check_space({name: drawn}, base)


def test_the_upper_end_of_whole_numbers_is_not_tried_because_it_is_never_drawn(base):
    check_space({"model.num_frames": tune.randint(8, 9)}, base)
    with pytest.raises(UserError, match=r"model\.num_frames = 9"):
        check_space({"model.num_frames": tune.randint(8, 10)}, base)


def test_a_space_that_needs_weights_that_are_missing_is_found_at_once(base):
    frozen = dataclasses.replace(base, weights=dataclasses.replace(base.weights, spatial="random", temporal="random"))
    check_space({"model.train_experts": tune.choice([True, False])}, frozen)
    with pytest.raises(UserError, match=r"model\.train_experts = False: weights\.spatial is not given"):
        check_space({"model.train_experts": tune.choice([True, False])}, base)


def test_another_model_keeps_only_the_options_that_it_has():
    hears = with_settings(toy(), {"model.name": "ca2st_tiny", "model.options.audio_frames": 64})
    assert hears.model.options.audio_frames == 64
    assert with_settings(hears, {"model.name": "cast_tiny"}).model.options.audio_frames is None


def test_a_space_is_read_from_a_python_file_of_the_user(tmp_path, base):
    file = tmp_path / "mine.py"
    file.write_text("from ray import tune\nSPACE = {'optim.base_lr': tune.loguniform(1e-3, 1e-2)}\n")
    space = read_space(str(file))
    check_space(space, base)
    assert list(space) == ["optim.base_lr"]


@pytest.mark.parametrize("content", ["", "SPACE = {}", "SPACE = 3"])
def test_a_file_without_a_space_is_refused(tmp_path, content):
    file = tmp_path / "mine.py"
    file.write_text(content)
    with pytest.raises(UserError, match="defines no SPACE"):
        read_space(str(file))


def test_a_file_that_fails_is_named_with_its_error(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("SPACE = {'optim.base_lr': tune.uniform(0, 1)}")
    with pytest.raises(UserError, match=r"mine\.py.*NameError.*'tune' is not defined"):
        read_space(str(file))


def test_a_space_that_is_nowhere_is_refused_with_those_that_are_ready():
    with pytest.raises(UserError, match=r"no search space 'optimizer'.*'optimiser'"):
        read_space("optimizer")
