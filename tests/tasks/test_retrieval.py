"""Retrieval: it learns, resumes, ranks in both directions and re-ranks."""

import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests import tiny
from tests.make_data import build
from tests.tasks.finetuned import evaluated, in_one_go_and_in_two, opened
from tests.tasks.paired_world import (
    ABOVE,
    BELOW,
    config,
    prepare,
    retrieval_task,
    start_in,
    tokenizer_in,
    two_colours,
    write,
)
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.data.class_names import ClassTexts
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.retrieval import chance
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks import parse
from vlbeit_jax.tasks.ranking import Gallery, dual_scores, embed
from vlbeit_jax.tasks.vqa import VQATask
from vlbeit_jax.training.mesh import make_mesh, put_replicated
from vlbeit_jax.training.state import declarations
from vlbeit_jax.training.warm_start import Origin, plan_warm_start
from vlbeit_jax.types import Kind, Positions

STEPS = 160
R1 = ("image_to_text/recall_1", "text_to_image/recall_1")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return tokenizer_in(folder)


@pytest.fixture(scope="module")
def pairs(folder):
    return prepare(folder / "own", Kind.PAIRS)


@pytest.fixture(scope="module")
def start(folder):
    return str(start_in(folder))


@pytest.fixture(scope="module")
def trained(folder, pairs, tokenizer, start):
    task = retrieval_task(pairs, tokenizer)
    train(config(task, STEPS, start_from=start), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def twice_matched(folder, pairs, tokenizer, start):
    """The states of a run with matching, in one go and in two.

    It has everything that draws: captions, crops, flips, drop path, wrong partners.
    """
    task = retrieval_task(
        pairs,
        tokenizer,
        pair={"rand_augment": "light", "flip": 0.5, "batch_size": 16},
        matching=True,
        negatives_among=8,
        rerank=8,
    )
    settings = config(task, 4, checkpoint_every=2, start_from=start)
    settings = tiny.changed(settings, task={"model": {"drop_path": 0.3}})
    return in_one_go_and_in_two(settings, folder / "matched")


@pytest.fixture(scope="module")
def matched(folder, twice_matched):
    """A few steps with matching, whose figures come beside those of the encoders."""
    return folder / "matched" / "whole"


def test_it_learns_its_pairs_and_is_better_than_chance_on_new_ones(trained, pairs):
    trained_on = evaluated(trained, pairs, "train")["metrics"]
    for name in R1:
        assert trained_on[f"retrieval/{name}"] >= 0.95
    new = evaluated(trained, pairs, "test")["metrics"]
    # New pairs, in other words, too: chance is 1 in 48, and permuted captions (below) stay there.
    assert min(new[f"retrieval/{name}"] for name in R1) > 0.2


@pytest.mark.slow  # That of test_matching_learns.py is in the normal suite.
def test_permuted_captions_give_chance_on_new_pairs(folder, tokenizer, start):
    sets = prepare(folder / "permuted", Kind.PAIRS, seed=1, permute=True)
    run = folder / "permuted" / "run"
    train(config(retrieval_task(sets, tokenizer), STEPS // 2, start_from=start), run)
    found = evaluated(run, sets, "test")
    for name in R1:
        assert found["metrics"][f"retrieval/{name}"] < found["chance"][name] + 0.1


def test_evaluation_repeats_the_log_and_states_the_protocol(matched, pairs):
    found = evaluated(matched, pairs, "validation")
    line = next(line for line in tiny.metrics_of(matched) if line["split"] == "validation")
    intervals = {
        name: found["metrics"].pop(f"{name}_interval") for name in [*found["metrics"]][::2]
    }
    assert len(found["metrics"]) == len(intervals) == 12
    assert {name: line[name] for name in found["metrics"]} == found["metrics"]
    for name, value in found["metrics"].items():
        low, high = intervals[name]
        assert low <= value <= high and (low < high or value in (0, 1)), name
    protocol = found["protocol"]
    assert (protocol["images"], protocol["captions"], found["groups"]) == (16, 32, 16)
    assert "counts as better" in protocol["ties"] and "best 8" in protocol["reranked"]
    assert found["chance"] == chance(np.repeat(np.arange(16), 2))
    assert 0 <= protocol["share_of_cut_texts"] < 0.2
    json.dumps(found)


def test_reranking_changes_no_rank_beyond_its_candidates(matched, pairs):
    metrics = evaluated(matched, pairs, "train")["metrics"]
    for direction in ("image_to_text", "text_to_image"):
        # With 8 candidates, the right one is among the best 10 as often as before.
        name = f"{direction}/recall_10"
        assert metrics[f"reranked/{name}"] == metrics[f"retrieval/{name}"]


def test_embeddings_do_not_depend_on_batches(trained, pairs):
    run, mesh = opened(trained), make_mesh(MeshConfig())
    records = open_set(str(pairs)).records("test")
    gallery, place = Gallery.of(records), run.place(mesh)
    task, tokenizer = run.config.task, run.opened.text
    params = put_replicated(run.params, mesh)
    image, text = embed(task, tokenizer, params, gallery, place)
    few = Gallery.of(records, 5)
    again = embed(task, tokenizer, params, few, place)
    np.testing.assert_allclose(image[:5], again[0], atol=1e-6)
    np.testing.assert_allclose(text[:10], again[1], atol=1e-6)
    assert few.owner.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    np.testing.assert_allclose(np.linalg.norm(text, axis=1), 1, atol=1e-5)
    assert np.abs(dual_scores(image, text)).max() <= 1 + 1e-5


def test_predictions_rank_the_captions_of_each_row(trained, pairs):
    run, mesh = opened(trained), make_mesh(MeshConfig())
    records = open_set(str(pairs)).records("train")
    asked = []
    for index in range(12):
        captions = [f"{above} {below}" for above in ABOVE for below in tuple(BELOW)[:4]]
        right = records[index]["captions"][0].decode()
        captions = [right, *(each for each in captions if each != right)]
        asked.append(
            {name: records[index][name] for name in ("id", "image")} | {"captions": captions}
        )
    found = list(run.predict(asked, 3, mesh))
    right = [
        line["caption"] == each["captions"][0] for line, each in zip(found, asked, strict=True)
    ]
    assert len(found) == 12 and np.mean(right) > 0.8  # Chance is about one in 32.
    for line in found:
        shares = [share for _, share in line["top"]]
        assert len(shares) == 3 and line["caption"] == line["top"][0][0]
        assert 1 >= shares[0] >= shares[1] >= shares[2] >= -1


def test_names_of_classes_find_the_pictures_that_it_learned(trained, folder):
    """New drawings of the colours that it was trained on; with the names shifted, it is wrong."""
    names = [f"{above} {below}" for above in ABOVE for below in BELOW]
    lines, rng = [], np.random.default_rng(5)
    for number, name in enumerate(names):
        (folder / f"zero_{number}.png").write_bytes(two_colours(rng, *name.split()))
        lines.append({"image": f"zero_{number}.png", "label": name, "split": "test"})
    (folder / "classes.txt").write_text("\n".join(names))
    path = write(folder / "zero.jsonl", lines)
    build(
        folder / "zero",
        Kind.LABELLED_IMAGES,
        [path],
        source_format="jsonl",
        classes=str(folder / "classes.txt"),
    )
    run, mesh = opened(trained), make_mesh(MeshConfig())

    def found(names, templates=("{}",)):
        return run.evaluate(
            [str(folder / "zero")], "test", mesh, ClassTexts(tuple(names), templates)
        )

    right = found(names)
    assert right["metrics"]["accuracy"] > 0.5  # Chance is 1 in 64.
    assert right["protocol"]["templates"] == ["{}"] and right["metrics"]["count"] == 64
    assert found(names, ("{}", "{} now"))["metrics"]["accuracy"] > 0.5
    shifted = found(names[1:] + names[:1])["metrics"]
    assert shifted["accuracy"] < 0.1 and shifted["loss"] > right["metrics"]["loss"]
    records = open_set(str(folder / "zero")).records("test")
    classify = run.classifier(ClassTexts(tuple(names)), 2, mesh)
    labels = [line["label"] for line in classify([records[i] for i in range(64)])]
    same = [label == records[i]["label"].decode() for i, label in enumerate(labels)]
    assert np.mean(same) == right["metrics"]["accuracy"]
    with pytest.raises(UsageError, match="has 64 classes, but --classes names 3"):
        found(names[:3])


def test_two_steps_a_kill_and_two_steps_are_four(twice_matched):
    whole, again = twice_matched
    jax.tree.map(np.testing.assert_array_equal, whole, again)


def shapes_of(init):
    flat = flatten_dict(declarations(init).shapes, sep="/")
    return {name: leaf.shape for name, leaf in flat.items()}


@pytest.mark.parametrize("matching", [False, True])
@pytest.mark.parametrize("positions", Positions)
def test_it_starts_from_pretraining_and_from_question_answering(matching, positions):
    """At another resolution; experts that no input reaches are left out."""
    model = parse({"task": {"kind": "retrieval"}}, to_train=False).task.model
    model = tiny.changed(
        model,
        image_size=96,
        width=32,
        depth=3,
        heads=4,
        ffn_width=64,
        vocabulary=300,
        text_positions=16,
        codes=20,
        positions=positions,
    )
    pretrained = shapes_of(lambda key: VLBEiT(model).init(key, method="init_all")["params"])
    larger = tiny.changed(model, image_size=128)
    task = tiny.changed(retrieval_task("", ""), model=larger, matching=matching)
    plan = plan_warm_start(pretrained, shapes_of(task.init), task.warm_start())
    origins = {each.name: each.origin for each in plan}
    fresh = {name for name, origin in origins.items() if origin is Origin.FRESH}
    heads = {"head/image/kernel", "head/text/kernel", "head/logit_scale"}
    assert fresh == heads | ({"head/match/kernel", "head/match/bias"} if matching else set())
    fused = [name for name in origins if "/vision_language/" in name]
    assert bool(fused) is matching
    adapted = {name for name, origin in origins.items() if origin is Origin.ADAPTED}
    table = (
        "vision_embed/positions"
        if positions is Positions.ABSOLUTE
        else "encoder/relative_positions"
    )
    assert adapted == {table}

    # A run of question answering has no final norm and no experts of one modality on top.
    questions = VQATask(model=larger)
    plan = plan_warm_start(pretrained, shapes_of(questions.init), questions.warm_start())
    assert {each.name.split("/")[0] for each in plan if each.origin is Origin.FRESH} == {
        "pooler",
        "head",
    }
    kept = tiny.changed(task, keep_head=True)
    plan = plan_warm_start(shapes_of(task.init), shapes_of(kept.init), kept.warm_start())
    assert {each.origin for each in plan} == {Origin.SAME}
    with pytest.raises(UsageError, match="head/image/kernel: nothing there"):
        plan_warm_start(pretrained, shapes_of(kept.init), kept.warm_start())


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"negatives_among": 4}, "negatives_among=4 has no use with matching=False"),
        (
            {"negatives_among": 5, "matching": True},
            "negatives_among=5 must be at least 2 and divide pair.batch_size=3072",
        ),
        ({"max_scale": 0.5}, "config.task.max_scale=0.5: must be 0 or >= 1"),
        ({"pair": {"batch_size": 1}}, "pair.batch_size=1: a pair is contrasted with the others"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_by_name(task, said):
    with pytest.raises(UsageError) as caught:
        parse({"task": {"kind": "retrieval"} | task})
    assert f"config.task.{said.removeprefix('config.task.')}" in str(caught.value)
