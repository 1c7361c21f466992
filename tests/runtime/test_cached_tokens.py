"""Cached visual tokens equal those that the step computes; tokens of other views are refused."""

import errno
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vlbeit_jax.config.parse import to_dict
from vlbeit_jax.data import cached_tokens
from vlbeit_jax.data.cached_tokens import VISUAL_TOKENS, WithTokens
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.source import TRAIN
from vlbeit_jax.data.sources import open_sources
from vlbeit_jax.errors import StorageError, UsageError
from vlbeit_jax.models.visual_tokenizer import encode
from vlbeit_jax.plan.memory import tree_bytes
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks import parse
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.tasks.flops import step_flops
from vlbeit_jax.tasks.token_caching import TokenCacher

STEPS, VIEWS = 12, 3


def config_with(world, tokens="", views=VIEWS, workers=0, schedule="image,pair", **stream):
    config = tiny.pretrain_config(
        world, steps=STEPS, schedule=schedule, log_every=4, evaluate_every=STEPS
    )
    changes = {name: {"views": views} | stream for name in ("image", "pair")}
    task = {"visual_tokens": str(tokens)} | changes
    return tiny.changed(config, task=task, loader={"workers": workers})


def keep(config, folder, *arguments):
    return tiny.command(
        "vlbeit_jax.keep_tokens",
        f"--config={tiny.config_file(config, folder)}",
        *arguments,
        devices=2,
    )


@pytest.fixture(scope="module")
def tokens(world, tmp_path_factory):
    """Made by the command, with two devices."""
    folder = tmp_path_factory.mktemp("cached")
    done = keep(config_with(world, folder / "tokens"), folder)
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.startswith("1/1:") and f"{48 * VIEWS} views" in done.stdout
    )  # Both streams see the same views.
    return folder / "tokens"


def test_no_half_of_a_description_is_left(tmp_path, monkeypatch):
    """Another run would end with a traceback where it lists which tokens there are."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    cached = cached_tokens.CachedTokens(tmp_path / "a", {"views": 3}, 1)
    with monkeypatch.context() as patch, pytest.raises(StorageError, match="is full"):
        patch.setattr("pathlib.Path.replace", full)
        cached.make_folder()
    assert not list((tmp_path / "a").iterdir())
    cached.make_folder()
    assert [path.name for path in (tmp_path / "a").iterdir()] == [cached_tokens.DESCRIPTION]


def opened(config):
    model = config.task.open_for(["image"])
    (found,) = open_sources("image", config.task.image)
    return model, found, model.cached_tokens("image", found)


def test_they_are_the_tokens_of_each_view(world, tokens):
    model, found, cached = opened(config_with(world, tokens))
    records, make = WithTokens(found.records(TRAIN), cached), model.make_example("image", True)
    different = 0
    for index in (0, 17, len(records) - 1):
        record = records[index]
        views = jnp.stack([make.views.fixed(record, number) for number in range(VIEWS)])
        expected = np.asarray(encode(model.visual.tokenizer, model.visual.frozen, views))
        assert (
            record[VISUAL_TOKENS] == expected
        ).mean() > 0.99  # Batches of other sizes round differently.
        different += (record[VISUAL_TOKENS][0] != expected[1]).sum()
    assert different  # Or the views would be all the same, and any would pass.


def test_examples_have_the_targets_of_their_own_view_and_the_same_masks_and_views_as_without(
    world, tokens
):
    model, found, cached = opened(config_with(world, tokens))
    make, numbers = model.make_example("image", True), set()
    for index, record in enumerate(
        WithTokens(found.records(TRAIN), cached)[index] for index in range(24)
    ):
        example = make(record, Draws(index))
        bare = make(found.records(TRAIN)[index], Draws(index))
        assert all(np.array_equal(bare[name], example[name]) for name in bare)
        (number,) = (
            number
            for number in range(VIEWS)
            if np.array_equal(make.views.fixed(record, number), example["image"])
        )
        assert np.array_equal(
            example["image_targets"], record[VISUAL_TOKENS][number][example["masked_patches"]]
        )
        numbers.add(number)
    assert numbers == set(range(VIEWS))


@pytest.fixture(scope="module")
def computed(world, tmp_path_factory):
    """A run whose tokens are computed in the step: parameters and folder."""
    folder = tmp_path_factory.mktemp("computed") / "run"
    return train(config_with(world, schedule="image+pair"), folder).params, folder


@pytest.mark.slow
def test_training_with_them_is_training_without(world, tokens, computed, tmp_path):
    # One worker: another process reads the tokens, and each takes seconds to start.
    config = config_with(world, tokens, schedule="image+pair", workers=1)
    params = train(config, tmp_path / "run").params
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), params, computed[0])
    kept, fresh = (tiny.metrics_of(folder)[-1] for folder in (tmp_path / "run", computed[1]))
    assert kept["mim/accuracy"] == fresh["mim/accuracy"] and kept["split"] == "validation"


@pytest.mark.slow
def test_other_targets_would_be_noticed(world, tokens, computed, tmp_path, monkeypatch):
    read = WithTokens.__getitem__

    def shifted(self, index):
        record = read(self, index)
        return record | {
            VISUAL_TOKENS: np.roll(record[VISUAL_TOKENS], 1, axis=0)
        }  # Those of the view before.

    monkeypatch.setattr(WithTokens, "__getitem__", shifted)
    train(config_with(world, tokens, schedule="image+pair"), tmp_path / "run")
    wrong, right = (
        tiny.metrics_of(folder)[0]["mim/loss"] for folder in (tmp_path / "run", computed[1])
    )
    assert abs(wrong - right) > 1e-4


def test_the_step_has_no_tokenizer_in_it(world, tokens):
    # Shapes of a step come from the settings alone, so they must state those of the folder.
    visual = tiny.vqkd_config(world).task.model
    for place, encoder in ((tokens, False), ("", True)):
        config = config_with(world, place, schedule="image+pair")
        config = tiny.changed(config, task={"tokenizer_model": visual})
        step = abstract_step(config, tiny.mesh_of())
        assert bool(tree_bytes(step.frozen)) == bool(step_flops(config).frozen) == encoder
        assert ("image_targets" in step.batches["image"]) != encoder
        assert bool(config.task.open().frozen) == encoder


def test_a_set_is_read_from_parts_once_all_are_there(world, tmp_path, monkeypatch):
    config = config_with(world, tmp_path / "tokens")
    monkeypatch.setattr(cached_tokens, "RECORDS_IN_PART", 16)
    cacher = TokenCacher(config, tiny.mesh_of(2))
    assert [part for *_, part in cacher.work] == [0, 1, 2]
    cacher.make(*cacher.work[1])
    cached, found, _ = cacher.work[0]
    assert [cached.has(part) for part in cached.parts] == [False, True, False]
    with pytest.raises(UsageError, match="2 of 3 parts of the tokens of .*pairs are missing"):
        config.task.open().training_data(config.run)
    for each in (cacher.work[0], cacher.work[2]):
        cacher.make(*each)
    whole = np.stack([cached[index] for index in range(48)])
    assert whole.shape == (48, VIEWS, 16) and whole.dtype == np.uint8
    assert not list(cached.folder.glob(".*"))  # Nothing unfinished stays behind.
    config.task.open().training_data(config.run)


def test_processes_make_their_own_shares(world, tmp_path):
    config = config_with(world, tmp_path / "tokens")
    config = tiny.changed(config, task={"pair": {"flip": 0.0}})
    for share, said in (
        ("1/2", "1 of 2 parts are there; the others"),
        ("0/2", "2 of 2 parts are there: train"),
    ):  # Two kinds of views.
        done = keep(config, tmp_path, f"--share={share}")
        assert done.returncode == 0 and done.stdout.startswith("1/1:") and said in done.stdout, (
            done.stderr
        )
    config.task.open().training_data(config.run)


def test_a_second_run_of_the_command_makes_nothing(world, tokens, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tokens.rglob("*.npy")}
    done = keep(config_with(world, tokens), tmp_path)
    assert done.returncode == 0 and "is there" in done.stdout, done.stderr
    assert {path: path.stat().st_mtime_ns for path in tokens.rglob("*.npy")} == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"crop_scale": 0.9}, "crop_scale=0.5 and not 0.9|crop_scale=0.2 and not 0.9"),
        ({"views": 5}, "views=3 and not 5"),
    ],
)
def test_tokens_of_other_views_are_refused_with_the_difference(world, tokens, change, said):
    config = config_with(world, tokens, **change)
    with pytest.raises(UsageError, match=said):
        config.task.open().training_data(config.run)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"views": 0}, "views=0"),
        ({"tokens": ""}, "config.task.visual_tokens is empty"),
        ({"schedule": "text"}, "task.schedule=text has no images"),
    ],
)
def test_settings_that_need_no_tokens_are_refused(world, tmp_path, change, said):
    config = config_with(world, **{"tokens": tmp_path / "tokens"} | change)
    with pytest.raises(UsageError, match=said):
        TokenCacher(parse(to_dict(config)), tiny.mesh_of(2))
    assert not (tmp_path / "tokens").exists()


def test_the_command_answers_usage_errors_in_one_message(world, tmp_path):
    for place, arguments, said in (
        ("tokens", ["--share=2/2"], "--share=2/2: needed is PART/OF"),
        ("config_of_test.py/tokens", [], "cannot be written"),
    ):
        done = keep(config_with(world, tmp_path / place), tmp_path, *arguments)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, (
            done.stderr
        )
