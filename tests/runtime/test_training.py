"""Both schedules and VQ-KD learn, logs are complete, evaluation counts every example once."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest

from tests import tiny
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.metrics_file import read_metrics
from vlbeit_jax.runtime.pretrained import evaluate, open_run
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks.open_vqkd import CodebookCollapse
from vlbeit_jax.training.mesh import make_mesh

TERMS = ("mim", "mlm", "mvlm_image", "mvlm_text")


@pytest.fixture
def run(pretrained):
    return pretrained


@pytest.mark.parametrize(
    "schedule", ["image,text,pair", pytest.param("image+text+pair", marks=pytest.mark.slow)]
)
def test_alternating_and_joint_schedules_learn(run, world, tmp_path, schedule):
    folder = run if "," in schedule else tmp_path / "run"
    if folder != run:
        train(tiny.learning_config(world, schedule), folder)
    lines = [line for line in read_metrics(folder) if line["split"] == "train"]
    for term in TERMS:
        assert lines[-1][f"{term}/loss"] < lines[0][f"{term}/loss"] - 0.3, term


def test_every_line_has_accuracy_with_chance_and_unigram(run):
    lines = read_metrics(run)
    assert {line["split"] for line in lines} == {"train", "validation"}
    kinds = ("loss", "accuracy", "unigram", "chance")
    for line in lines:
        assert {f"{term}/{kind}" for term in TERMS for kind in kinds} <= line.keys()
        assert math.isclose(line["mim/chance"], 1 / 32)
        assert math.isclose(line["mlm/chance"], 1 / tiny.PIECES)
        if line["split"] == "train":
            assert {"grad_norm", "learning_rate", "samples_per_second", "data_wait"} <= line.keys()
            assert 0 <= line["data_wait"] <= 1
    assert any(path.name.startswith("events") for path in (run / "tensorboard").iterdir())
    assert "step 60/60" in (run / "log.txt").read_text()


def test_a_run_stands_on_its_own(run, world):
    opened = open_run(run)
    assert opened.step == 60
    assert opened.model.visual.folder == run / "visual_tokenizer"
    assert opened.model.text.folder == run / "text_tokenizer"


def test_evaluation_reports_every_term_and_both_gains(run, world):
    sets = [str(world.pairs), str(world.texts)]
    results = evaluate(open_run(run), sets, make_mesh(MeshConfig()), draws=2)
    for term in TERMS:
        found = results[term]
        single = {"accuracy", "chance", "unigram", "loss", "count"}
        assert set(found) == single | {"accuracy_interval"}
        low, high = found["accuracy_interval"]
        assert 0 <= low <= found["accuracy"] <= high <= 1
    assert results["mim"]["count"] == results["mvlm_image"]["count"] == 16 * 2 * 6
    for gain in ("gain_text", "gain_image"):
        assert results[gain]["low"] <= results[gain]["value"] <= results[gain]["high"]
    assert [found["splits"] for found in results["data"]] == [["validation"], ["validation"]]


def written(place, kind, records):
    tiny.write_set(place, kind, records, shards=1, meta={"source": "", "licence": ""})
    return str(place)


def test_data_that_was_never_trained_on_is_scored_as_a_whole(run, tmp_path):
    written(tmp_path / "new", tiny.Kind.PAIRS, tiny.pair_records(12, first=1000, side=36))
    results = evaluate(open_run(run), [str(tmp_path / "new")], make_mesh(MeshConfig()), draws=1)
    assert results["data"][0]["splits"] == ["train", "validation"]
    assert results["mvlm_image"]["count"] == 12 * 6
    assert results["mlm"]["count"] > 0  # Of the captions, because no set of texts is given.
    asked = dataclasses.replace(open_run(run), held_out_only=True)
    results = evaluate(asked, [str(tmp_path / "new")], make_mesh(MeshConfig()), draws=1)
    assert results["data"][0]["splits"] == ["validation"]
    assert results["mvlm_image"]["count"] == 3 * 6
    everything = (("train", record) for _, record in tiny.pair_records(4, first=2000, side=36))
    place = written(tmp_path / "unsplit", tiny.Kind.PAIRS, everything)
    with pytest.raises(UsageError, match="no held-out records; the run has seen none"):
        evaluate(asked, [place], make_mesh(MeshConfig()), draws=1)


def test_streams_that_were_not_trained_are_scored_with_settings_that_fit(run, world, tmp_path):
    """Nobody has set them: the defaults are for more patches and longer texts."""
    shutil.copytree(run, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["task"]["schedule"] = "pair"
    config["task"]["image"] |= {"num_masked_patches": 75, "mask_block": 16}
    config["task"]["text"]["text_length"] = 128
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    found = evaluate(open_run(tmp_path / "run"), [str(world.pairs)], make_mesh(MeshConfig()), 1)
    assert found["mim"]["count"] == 16 * round(0.4 * 16) and found["mlm"]["count"] > 0
    packed = evaluate(open_run(tmp_path / "run"), [str(world.texts)], make_mesh(MeshConfig()), 1)
    assert packed["mlm"]["count"] > 0
    # The stream that was trained keeps its settings.
    own = evaluate(open_run(run), [str(world.pairs)], make_mesh(MeshConfig()), 1)
    assert found["mvlm_text"] == own["mvlm_text"]


def images_of_pairs(held_out):
    """The images of the world's pairs as a set of images; ``held_out`` chooses by number."""
    for _, record in tiny.pair_records(64):
        number = int(record["id"].removeprefix("pair/"))
        split = "validation" if held_out(number) else "train"
        yield split, {name: record[name] for name in record if name != "captions"}


def test_images_that_were_trained_on_in_another_set_are_recognised(run, tmp_path):
    """The set is of another kind, and so has another fingerprint; the images are equal."""
    own = images_of_pairs(lambda number: number % 4 == 0)
    place = written(tmp_path / "images", tiny.Kind.IMAGES, own)
    results = evaluate(open_run(run), [place], make_mesh(MeshConfig()), draws=1)
    assert results["data"][0]["splits"] == ["validation"] and results["mim"]["count"] == 16 * 6
    place = written(tmp_path / "all", tiny.Kind.IMAGES, images_of_pairs(lambda number: False))
    with pytest.raises(UsageError, match="all has no held-out records, and the run has seen"):
        evaluate(open_run(run), [place], make_mesh(MeshConfig()), draws=1)
    one_more = images_of_pairs(lambda number: number % 4 == 0 or number == 7)
    place = written(tmp_path / "others", tiny.Kind.IMAGES, one_more)
    message = "others holds out 1 .* that the run was trained on .*'pair/7'.*--apart_from"
    with pytest.raises(UsageError, match=message):
        evaluate(open_run(run), [place], make_mesh(MeshConfig()), draws=1)


def test_a_run_does_not_start_on_what_it_holds_back(world, tmp_path):
    other = images_of_pairs(lambda number: number % 4 == 1)
    place = written(tmp_path / "images", tiny.Kind.IMAGES, other)
    config = tiny.pretrain_config(world)
    mixed = {"image": {"sources": (str(world.pairs), place)}}
    pretrain = tiny.changed(config, task={"image": {"sources": (place,)}})
    vqkd = tiny.vqkd_config(world)
    vqkd = tiny.changed(vqkd, task=mixed)
    message = "holds out 16 .* in the training part of .*'pair/"
    for each in (pretrain, vqkd):
        with pytest.raises(UsageError, match=message):
            train(each, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_evaluation_needs_the_list_of_what_was_trained_on(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "trained_on")
    with pytest.raises(UsageError, match="not known what the run was trained on"):
        open_run(tmp_path / "run")


@pytest.mark.slow
def test_evaluation_does_not_depend_on_the_mesh(run, world):
    opened = open_run(run)
    found, other = (
        evaluate(opened, [str(world.pairs)], mesh, draws=1)
        for mesh in (tiny.mesh_of(), tiny.mesh_of(3, 2))
    )
    for term in ("mim", "mvlm_image", "mvlm_text"):
        assert found[term]["count"] == other[term]["count"]
        assert math.isclose(found[term]["loss"], other[term]["loss"], rel_tol=1e-5)


@pytest.mark.parametrize("what", ["vqkd run", "empty folder"])
def test_evaluation_of_something_else_is_refused(what, world, tmp_path):
    folder, message = {
        "vqkd run": (world.vqkd, "pretraining run is needed"),
        "empty folder": (tmp_path, "not the folder of a run"),
    }[what]
    with pytest.raises(UsageError, match=message):
        open_run(folder)


@pytest.mark.slow
def test_the_visual_tokenizer_uses_its_codes_and_reseeding_revives_them(world, tmp_path):
    config = tiny.vqkd_config(world, steps=60, log_every=20, evaluate_every=60, checkpoint_every=60)
    train(tiny.changed(config, task={"model": {"reseed_below": 0.3}}), tmp_path / "run")
    lines = read_metrics(tmp_path / "run")
    training = [line for line in lines if line["split"] == "train"]
    assert training[-1]["distillation/loss"] < training[0]["distillation/loss"]
    assert {"codes_used", "dead_codes", "perplexity", "reseeded"} <= training[-1].keys()
    assert training[-1]["codes_used"] >= 0.9 * 32


def test_the_kmeans_start_is_a_step_on_data(world):
    config = tiny.vqkd_config(world)
    task, opened = config.task, config.task.open()
    from vlbeit_jax.data.shard import HostShard
    from vlbeit_jax.tasks.base import Place
    from vlbeit_jax.training.optimizer import make_optimizer
    from vlbeit_jax.training.state import declarations, state_maker

    mesh = tiny.mesh_of(4)
    info = declarations(task.init).info
    optimizer = make_optimizer(config.optimizer, 3, info)
    make, _ = state_maker(
        task.init,
        lambda: {n: each.objective.init_model_state() for n, each in task.streams().items()},
        optimizer,
        mesh,
    )
    place = Place(config.run, config.loader, mesh, HostShard())
    state = opened.prepare_state(make(0), opened.training_data(config.run), place)
    codebook = np.asarray(state.model_state["image"]["codebook"])
    np.testing.assert_allclose(np.linalg.norm(codebook, axis=1), 1, rtol=1e-5)
    assert len(np.unique(codebook.round(5), axis=0)) == 32


def test_a_collapsed_codebook_warns_by_name(world):
    opened = tiny.vqkd_config(world).task.open()
    with pytest.warns(CodebookCollapse, match="only 2 of 32 codes"):
        opened._warn_of_collapse(np.array([16.0, 16.0] + [0.0] * 30))


def test_a_visual_tokenizer_that_does_not_fit_is_refused(world, tmp_path):
    config = tiny.pretrain_config(world)
    other = tiny.changed(config, task={"model": {"codes": 64}})
    with pytest.raises(UsageError, match="codes=32, but task.model.codes=64"):
        train(other, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("how", "said"),
    [("cudnn", "needs an NVIDIA GPU"), ("fused", "cannot compute 17 tokens of width 32")],
)
def test_attention_that_is_not_possible_here_is_refused_before_anything_is_written(
    world, tmp_path, how, said
):
    config = tiny.pretrain_config(world)
    other = tiny.changed(config, task={"model": {"attention": how}})
    with pytest.raises(UsageError, match=f"attention={how} {said}"):
        train(other, tmp_path / "run")
    assert not (tmp_path / "run").exists()
