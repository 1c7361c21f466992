"""Probes while pretraining: what they measure, when, and that they change nothing."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vlbeit_jax import progress
from vlbeit_jax.config.common import LoaderConfig, RunConfig
from vlbeit_jax.config.probes import ProbeConfig
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.data.source import TRAIN, VALIDATION
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.probes import Ridge
from vlbeit_jax.prepare.writer import write_set
from vlbeit_jax.report.figures import probe_panels
from vlbeit_jax.runtime.features import Features
from vlbeit_jax.runtime.metrics_file import read_metrics
from vlbeit_jax.runtime.pretrained import open_run
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks import open_pretrain
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.tasks.probing import PairProbe, Probe, Probes
from vlbeit_jax.training.mesh import put_replicated
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.types import Kind

CLASSES = sorted(tiny.COLOURS)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Drawings with their colour as class, and texts with it."""
    folder, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    images, texts = [], []
    for number in range(96):
        colour, split = CLASSES[number % 4], VALIDATION if number % 3 == 0 else TRAIN
        record = {"id": str(number), "source": "made", "group": str(number), "label": colour}
        image = tiny.drawing(rng, str(rng.choice(tiny.SHAPES)), tiny.COLOURS[colour])
        image[0, 0] = number  # So that no two are equal.
        images.append((split, record | {"image": tiny.png(image)}))
        texts.append((split, record | {"text": f"a {colour} thing number {number}"}))
    meta = {"source": "tests", "licence": "", "classes": CLASSES}
    write_set(folder / "images", Kind.LABELLED_IMAGES, images, shards=1, meta=meta)
    write_set(folder / "texts", Kind.LABELLED_TEXTS, texts, shards=1, meta=meta)
    return folder


def probed(world, sets, **probes):
    settings = ProbeConfig(
        **{
            "every": 2,
            "images": str(sets / "images"),
            "texts": str(sets / "texts"),
            "pairs": str(world.pairs),
            "shots": 3,
            "neighbours": 5,
            "strength": 1.0,
        }
        | probes
    )
    # Probes look at images, texts and pairs, whatever is trained; texts compile in least time.
    config = tiny.pretrain_config(world, schedule="text", steps=4, checkpoint_every=4, log_every=4)
    return dataclasses.replace(config, task=dataclasses.replace(config.task, probes=settings))


@pytest.fixture(scope="module")
def run(world, sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("probed") / "run"
    train(probed(world, sets), folder)
    return folder


def probe_lines(folder):
    return [line for line in read_metrics(folder) if "probe/seconds" in line]


def test_each_probe_writes_one_line(run):
    lines = probe_lines(run)
    assert [line["step"] for line in lines] == [2, 4]
    names = ("ridge", "ridge_3", "neighbours", "majority")
    wanted = {f"probe/{each}/{name}" for each in ("image", "text") for name in names}
    directions = ("image_to_text_recall_10", "text_to_image_recall_10")
    wanted |= {f"probe/pair/{given}{name}" for given in ("", "chance_") for name in directions}
    for line in lines:
        assert {name for name in line if name.startswith("probe/")} == wanted | {"probe/seconds"}
        assert all(0 <= line[name] <= 1 for name in wanted) and line["probe/seconds"] > 0
        assert line["probe/image/majority"] == 0.25
        assert line["probe/pair/chance_text_to_image_recall_10"] == 10 / 16  # Held-out pairs.
        assert line["probe/image/ridge"] > 0.4  # Colours are told by any network.
    assert "image ridge" in (run / "log.txt").read_text()
    assert probe_panels(read_metrics(run)) and not probe_panels([])


def test_a_figure_is_what_the_saved_parameters_give(run, sets):
    features, probe = Features.open(run), Probe(str(sets / "images"), Kind.LABELLED_IMAGES, 1000)
    known, new = (
        features.images([record["image"] for record in probe.parts[split].records])
        for split in (TRAIN, VALIDATION)
    )
    labels = probe.parts[TRAIN].labels
    scores = Ridge.fit(known, labels, 4).scores(new, 1.0)
    right = float(np.mean(scores.argmax(axis=1) == probe.parts[VALIDATION].labels))
    assert probe_lines(run)[-1]["probe/image/ridge"] == pytest.approx(right, abs=1e-12)


def test_probes_change_nothing_of_the_run(world, sets, run, tmp_path):
    train(probed(world, sets, every=0), tmp_path / "run")
    assert not probe_lines(tmp_path / "run")
    with_probes, without = open_run(run).params, open_run(tmp_path / "run").params
    assert all(map(np.array_equal, jax.tree.leaves(with_probes), jax.tree.leaves(without)))


def test_probes_are_the_same_on_any_mesh(run, sets):
    opened = open_run(run)
    settings = dataclasses.replace(opened.config.task.probes, rows=20)
    probes = Probes(settings, opened.model.task.model, opened.model.text)
    assert all(len(part.labels) == 20 for part in probes._probes["image"].parts.values())
    found = []
    for mesh in (tiny.mesh_of(), tiny.mesh_of(data=2, fsdp=2)):
        place = Place(RunConfig(), LoaderConfig(), mesh, HostShard())
        params, zero = put_replicated(opened.params, mesh), jnp.zeros((), jnp.int32)
        state = TrainState(zero, params, {}, {}, None, zero)
        found.append(probes.run(place, state, {}))
        del found[-1]["seconds"]
    assert found[0] == pytest.approx(found[1], abs=1e-12)


class Signal(Exception):
    """Stands for a signal."""


def test_every_evaluation_asks_at_each_batch_whether_a_signal_has_come(world, sets):
    """Otherwise a preempted run would evaluate in the time in which it has to save."""

    def come():
        raise Signal

    mesh, nothing = tiny.mesh_of(), types.SimpleNamespace(params={})
    asked = 0
    for config in (probed(world, sets, pairs=""), tiny.vqkd_config(world, evaluate_every=1)):
        opened = config.task.resolve().open()
        place = Place(config.run, LoaderConfig(), mesh, HostShard())
        for evaluator in opened.evaluators(opened.training_data(config.run), place):
            with progress.checking(come), pytest.raises(Signal):
                evaluator.run(nothing, {})
            asked += 1
    assert asked == 3  # Pretraining's, its probes', and VQ-KD's.


def test_a_run_evaluates_with_the_tokenizer_that_its_steps_use(world, monkeypatch):
    """Not with a second copy, for which the devices may have no room."""

    def copied(tree, mesh):
        raise AssertionError("copied to the devices again")

    monkeypatch.setattr(open_pretrain, "put_replicated", copied)
    monkeypatch.setattr(open_pretrain, "score", lambda *given, **_: seen.append(given[2]) or {})
    config, seen = tiny.pretrain_config(world, schedule="image,pair"), []
    opened = config.task.resolve().open()
    place = Place(config.run, LoaderConfig(), tiny.mesh_of(), HostShard())
    (evaluator,) = opened.evaluators(opened.training_data(config.run), place)
    frozen = {"on": "devices"}
    assert evaluator.run(types.SimpleNamespace(params={}), frozen) == {}
    assert len(seen) == 2 and all(each is frozen for each in seen)
    with pytest.raises(AssertionError, match="again"):  # With cached tokens, steps have none.
        evaluator.run(types.SimpleNamespace(params={}), {})


def test_retrieval_finds_what_is_alike_and_nothing_else(world):
    probe, rng = PairProbe(str(world.pairs), 1000), np.random.default_rng(0)
    images = rng.normal(size=(16, 40)) + 5
    found = probe.figures(images, images * 3 - 40)  # Other place and scale, the same directions.
    assert {value for name, value in found.items() if "chance" not in name} == {1.0}
    found = probe.figures(images, rng.normal(size=(16, 40)))  # The control.
    assert 0.3 < found["image_to_text_recall_10"] < 0.95


def test_wrong_settings_are_refused(world, sets):
    assert "probes.images" in ProbeConfig(every=1).training_problems()[0]
    assert not ProbeConfig().training_problems()
    model = probed(world, sets).task.model
    with pytest.raises(UsageError, match="labelled_images are needed"):
        Probes(ProbeConfig(every=1, images=str(sets / "texts")), model, None)
    with pytest.raises(UsageError, match="need a text tokenizer"):
        Probes(ProbeConfig(every=1, texts=str(sets / "texts")), model, None)
