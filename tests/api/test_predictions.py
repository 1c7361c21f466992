"""Fine-tuned models answer as ``python -m vlbeit_jax.predict`` does."""

import functools
import json
import shutil

import cv2
import numpy as np
import pytest

import vlbeit_jax
from tests.convert.finetuned_runs import sets_in, task_of, write_run
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.data.class_names import ClassTexts
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.finetuned import FineTunedRun
from vlbeit_jax.tasks import TASKS
from vlbeit_jax.tasks.image_classification import ImageClassification
from vlbeit_jax.tasks.ranking import Gallery, embed
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.training.mesh import make_mesh, put_replicated

COUNT = 5
PAIR = ("image", "second_image")


@pytest.fixture(scope="module")
def places(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    sets = sets_in(folder / "sets")

    @functools.cache
    def place(name):
        task = task_of(name, sets[name], world.text_tokenizer)
        return write_run(folder / name, task), sets[name]

    return place


def opened(places, name):
    """The model, the run, and the first test records with their pixels."""
    folder, data = places(name)
    config = read_config(folder)
    run = FineTunedRun.open(folder, config, config.task.open(folder))
    records = open_set(str(data)).records("test")
    return vlbeit_jax.load(folder, compilation_cache=""), run, [records[i] for i in range(COUNT)]


def pixels(record):
    return cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_COLOR_RGB)


def text(record):
    return record["text"].decode()


def predictions(run, records, top=3):
    return list(run.predict(records, top, make_mesh(MeshConfig())))


def assert_same(found, expected):
    for answers, line in zip(found, expected, strict=True):
        assert [name for name, _ in answers] == [name for name, _ in line["top"]]
        np.testing.assert_allclose(
            [share for _, share in answers],
            [share for _, share in line["top"]],
            rtol=1e-5,
            atol=1e-7,  # Cosines are near 0, too.
        )


@pytest.mark.parametrize(
    ("name", "given"), [("image_classification", pixels), ("text_classification", text)]
)
def test_classes_are_those_of_predict(places, name, given):
    model, run, records = opened(places, name)
    found = model.classify([given(record) for record in records], top=3)
    assert_same(found, predictions(run, records))
    with pytest.raises(
        UsageError, match=f"answer .* fine-tuned for {name}, whose method is classify"
    ):
        model.answer(given(records[0]), "what?")


def test_captions_are_those_of_predict(places):
    model, run, records = opened(places, "captioning")
    found = model.caption(list(map(pixels, records)))
    assert found == [line["caption"] for line in predictions(run, records)] and all(found)
    assert model.caption(pixels(records[2])) == [found[2]]
    with pytest.raises(UsageError, match="for captioning, whose method is caption;"):
        model.answer(pixels(records[0]), "what?")


def test_masks_are_those_of_predict(places):
    model, run, records = opened(places, "segmentation")
    found = model.segment(list(map(pixels, records)))
    for one, line in zip(found, predictions(run, records), strict=True):
        np.testing.assert_array_equal(one.mask, line["mask"])
        assert one.classes == ("0", "1", "2", "3") and one.mask.shape == (32, 32)
    with pytest.raises(UsageError, match="for segmentation, whose method is segment;"):
        model.answer(pixels(records[0]), "what?")


def test_answers_are_those_of_predict(places):
    model, run, records = opened(places, "vqa")
    found = model.answer(list(map(pixels, records)), list(map(text, records)), top=3)
    assert_same(found, predictions(run, records))
    one = [record | {"image": records[0]["image"]} for record in records]
    found = model.answer(pixels(records[0]), list(map(text, records)), top=3)
    assert_same(found, predictions(run, one))
    with pytest.raises(UsageError, match="2 images and 3 questions"):
        model.answer([pixels(records[0])] * 2, ["a", "b", "c"])
    with pytest.raises(UsageError, match="no parameters for masked words"):
        model.fill_mask("a <mask>")


def test_judgements_are_those_of_predict(places):
    model, run, records = opened(places, "visual_reasoning")
    pairs = [(pixels(each), pixels({"image": each["second_image"]})) for each in records]
    found = model.judge(pairs, list(map(text, records)))
    expected = predictions(run, records, top=2)
    np.testing.assert_allclose(found, [dict(line["top"])["true"] for line in expected], rtol=1e-5)
    assert [share > 0.5 for share in found] == [line["truth"] for line in expected]
    # One pair for all statements, one statement alone, and a pair as an array.
    one = [
        record | dict(zip(PAIR, (records[0][n] for n in PAIR), strict=True)) for record in records
    ]
    for given in (pairs[0], np.stack(pairs[0])):
        again = model.judge(given, list(map(text, records)))
        shares = [dict(line["top"])["true"] for line in predictions(run, one, top=2)]
        np.testing.assert_allclose(again, shares, rtol=1e-5)
    np.testing.assert_allclose(model.judge(pairs[0], text(records[0])), found[:1], rtol=1e-4)
    for wrong in (pairs[0][0], [pairs[0][0]] * 3, pairs[:2], [pairs[0], pairs[1][0]]):
        with pytest.raises(UsageError, match="3 statements: give two images for each, such as"):
            model.judge(wrong, ["a", "b", "c"])
    with pytest.raises(UsageError, match="answer .* for visual_reasoning, whose method is judge"):
        model.answer(pairs[0][0], "what?")


def test_vectors_and_search_are_those_of_evaluation(places):
    model, run, records = opened(places, "retrieval")
    gallery = Gallery.of(records)
    place = run.place(make_mesh(MeshConfig()))
    params = put_replicated(run.params, place.mesh)
    image, words = embed(run.config.task, run.opened.text, params, gallery, place)
    texts = [each["text"] for each in gallery.texts]
    found = model.embed(images=list(map(pixels, records)), texts=texts)
    np.testing.assert_allclose(found.image, image, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.text, words, rtol=1e-4, atol=1e-5)
    cosines = words @ image.T
    for given in (list(map(pixels, records)), found.image):
        answers = model.search(texts, given, top=2)
        for row, best in zip(cosines, answers, strict=True):
            assert [number for number, _ in best] == np.argsort(-row)[:2].tolist()
            np.testing.assert_allclose([c for _, c in best], np.sort(row)[::-1][:2], rtol=1e-4)
    with pytest.raises(UsageError, match="images has vectors of 3 numbers, but .* give images, or"):
        model.search(texts, found.image[:, :3])


def test_names_of_classes_are_compared_as_captions_are(places):
    """One template: as ``predict`` ranks captions. Several: their mean, stated independently."""
    model, run, records = opened(places, "retrieval")
    mesh = make_mesh(MeshConfig())
    names, images = ("red on navy", "pink", "two", "gold"), [pixels(each) for each in records]
    plain = [{"id": each["id"], "image": each["image"], "captions": names} for each in records]
    assert_same(model.classify(images, classes=names, top=3), predictions(run, plain))
    forms = ("a drawing of {}", "{} and nothing {}")
    found = model.classify(images, classes=names, templates=forms, top=4)
    texts = [form.format(*[name] * form.count("{}")) for name in names for form in forms]
    embedded = model.embed(images, texts)
    means = embedded.text.astype(np.float64).reshape(4, 2, -1).mean(axis=1)
    cosines = embedded.image @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    for listed, row in zip(found, cosines, strict=True):
        order = np.argsort(-row)
        assert [name for name, _ in listed] == [names[each] for each in order]
        np.testing.assert_allclose([each for _, each in listed], row[order], atol=1e-6)
    classify = run.classifier(ClassTexts(names, forms), 4, mesh)
    assert_same(found, classify([{"id": each["id"], "image": each["image"]} for each in records]))


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("retrieval", {"classes": ["a", "b"], "templates": ["x"]}, "template 'x' has no {}"),
        ("retrieval", {"classes": ["a", "a"]}, "the class 'a' is there twice"),
        ("retrieval", {}, "classify .* fine-tuned for retrieval, whose method is search"),
        (
            "vqa",
            {"classes": ["a", "b"]},
            r"classify with classes=... needs .* for vqa, whose method is answer",
        ),
    ],
)
def test_names_that_do_not_fit_are_refused(places, name, given, said):
    model, _, records = opened(places, name)
    with pytest.raises(UsageError, match=said):
        model.classify([pixels(records[0])], **given)


def test_a_fine_tuned_model_encodes_what_it_was_trained_on(places):
    model, _, records = opened(places, "image_classification")
    assert model.encode(images=[pixels(records[0])]).image.shape == (1, 32)
    with pytest.raises(UsageError, match="has no parameters for texts"):
        model.encode(texts="a")


def test_a_pretrained_model_does_not_classify(random_model):
    with pytest.raises(UsageError, match="classify needs a fine-tuned model"):
        random_model.classify(["a"])


def test_averaged_parameters_are_another_model(places):
    folder, data = places("image_classification")
    records = open_set(str(data)).records("test")
    first = [pixels(records[0])]
    raw, ema = (
        vlbeit_jax.load(folder, weights=weights, compilation_cache="").classify(first)
        for weights in ("raw", "ema")
    )
    assert raw != ema


class Birds(ImageClassification):
    """A task of a user, in a file of their own."""

    kind = "birds"


def test_a_task_that_the_package_does_not_know_has_the_method_of_its_kind(
    places, tmp_path, monkeypatch
):
    folder, data = places("image_classification")
    known = vlbeit_jax.load(folder, compilation_cache="")
    monkeypatch.setitem(TASKS, Birds.kind, f"{__name__}:Birds")
    own = shutil.copytree(folder, tmp_path / "own")
    saved = json.loads((own / "config.json").read_text())
    saved["task"]["kind"] = Birds.kind
    (own / "config.json").write_text(json.dumps(saved))
    model = vlbeit_jax.load(own, compilation_cache="")
    picture = pixels(open_set(str(data)).records("test")[0])
    assert model.classify(picture) == known.classify(picture)
    with pytest.raises(UsageError, match="search .* for birds, whose method is classify"):
        model.search("a", picture)
