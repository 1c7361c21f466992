"""Official files of benchmarks that are missing, damaged or of another release: each is named."""

import json

import pytest

from tests.make_data import build
from tests.prepare import benchmarks
from tests.prepare.benchmarks import MADE, prepare
from vlbeit_jax.data.identity import TRAIN
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Kind


def edited(path, edit):
    found = json.loads(path.read_text())
    edit(found)
    path.write_text(json.dumps(found))


VQA_TRAIN = "v2_OpenEnded_mscoco_train2014_questions.json"
VQA_NOTED = "v2_mscoco_val2014_annotations.json"
FAULTS = {
    "no questions": ("vqav2", lambda f: (f / VQA_TRAIN).unlink(), f"no {VQA_TRAIN} here, which"),
    "no annotations": ("vqav2", lambda f: (f / VQA_NOTED).unlink(), f"no {VQA_NOTED} here, which"),
    "no folder": ("vqav2", lambda f: (f / "val2014").rename(f / "x"), "no val2014/ here, which"),
    "a picture": (
        "vqav2",
        lambda f: (f / "train2014" / "COCO_train2014_000000000103.jpg").unlink(),
        f"{VQA_TRAIN}: question 103000: record '103000': its image train2014/.* cannot be read: No",
    ),
    "an annotation": (
        "vqav2",
        lambda f: edited(f / VQA_NOTED, lambda found: found["annotations"].pop()),
        f"record '200001': it has no annotation in {VQA_NOTED}",
    ),
    "another release": (
        "vqav2",
        lambda f: edited(
            f / VQA_NOTED, lambda found: found["annotations"][0].update(question_id=7)
        ),
        f"{VQA_NOTED}: it answers question 7, which is not in v2_OpenEnded_mscoco_val2014",
    ),
    "an answer": (
        "vqav2",
        lambda f: edited(
            f / VQA_NOTED, lambda found: found["annotations"][0]["answers"][2].pop("answer")
        ),
        f"record '202000': of its annotation in {VQA_NOTED}: an answer has no text",
    ),
    "a question id": (
        "vqav2",
        lambda f: edited(f / VQA_TRAIN, lambda found: found["questions"][1].pop("question_id")),
        rf"{VQA_TRAIN}: of questions\[1\]: it has no 'question_id'",
    ),
    "another file": (
        "vqav2",
        lambda f: (f / VQA_TRAIN).write_text("[]"),
        f"{VQA_TRAIN}: it has no list of objects under 'questions'",
    ),
    "not JSON": ("vqav2", lambda f: (f / VQA_TRAIN).write_text("<html>"), "cannot be read as JSON"),
    "a damaged picture": (
        "karpathy",
        lambda f: (f / "val2014" / "COCO_val2014_000000000006.jpg").write_bytes(b"x"),
        r"images\[6\]: record '5006': its image is not a file of a known image format",
    ),
    "an outside picture": (
        "karpathy",
        lambda f: edited(
            f / "dataset_coco.json", lambda found: found["images"][0].update(filename="../../x.jpg")
        ),
        "record '5000': its image train2014/../../x.jpg is outside the folder",
    ),
    "a caption": (
        "karpathy",
        lambda f: edited(
            f / "dataset_coco.json", lambda found: found["images"][0]["sentences"][1].pop("raw")
        ),
        r"images\[0\]: record '5000': one of its 'sentences' has no text under 'raw'",
    ),
    "a split": (
        "karpathy",
        lambda f: edited(
            f / "dataset_coco.json", lambda found: found["images"][3].update(split="dev")
        ),
        r"images\[3\]: its split 'dev' is none of train, restval, val, test",
    ),
    "COCO's folder": (
        "karpathy",
        lambda f: (f / "train2014").rename(f / "x"),
        "no train2014/ here, which holds pictures that dataset_coco.json names",
    ),
    "an empty class": (
        "imagenet",
        lambda f: [path.unlink() for path in (f / "train" / "n02012849").iterdir()],
        "train/n02012849: there is no .JPEG file in it; unpack n02012849.tar",
    ),
    "a class of val alone": (
        "imagenet",
        lambda f: (f / "train" / "n02012849").rename(f / "x"),
        "val: there are pictures of n02012849, which train/ lacks",
    ),
}


@pytest.mark.parametrize(("name", "damage", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_names_file_record_and_what_is_missing(tmp_path, name, damage, said):
    source = MADE[name](tmp_path / "source")
    damage(tmp_path / "source")
    with pytest.raises(UsageError, match=said):
        prepare(tmp_path, source, name)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("val", "damage", "said"),
    [
        (
            "solution",
            lambda f: (f / "LOC_val_solution.csv").unlink(),
            "neither LOC_val_solution.csv",
        ),
        (
            "kit",
            lambda f: (f / "ILSVRC2012_devkit_t12" / "data" / "meta.mat").unlink(),
            "no ILSVRC2012_devkit_t12/data/meta.mat here",
        ),
        (
            "kit",
            lambda f: (f / "val" / "ILSVRC2012_val_00000002.JPEG").unlink(),
            "it has 4 lines, but val/ has 3 pictures",
        ),
        (
            "kit",
            lambda f: (f / "ILSVRC2012_devkit_t12" / "data" / "meta.mat").write_bytes(b"x" * 200),
            "meta.mat: cannot be read",
        ),
    ],
)
def test_what_says_the_classes_of_flat_pictures_is_named(tmp_path, val, damage, said):
    source = benchmarks.imagenet(tmp_path / "imagenet", val)
    damage(source)
    with pytest.raises(UsageError, match=said):
        prepare(tmp_path, source, "imagenet")


def test_two_inputs_and_splits_of_another_format_are_refused(tmp_path):
    one, two = benchmarks.vqav2(tmp_path / "one"), benchmarks.vqav2(tmp_path / "two")
    with pytest.raises(UsageError, match="--format=vqav2 reads one --input, but there are 2"):
        build(tmp_path / "set", Kind.QUESTIONS, [one, two], source_format="vqav2")
    coco = benchmarks.karpathy_coco(tmp_path / "coco")
    with pytest.raises(UsageError, match="coco is a folder; name its files"):
        build(tmp_path / "set", Kind.PAIRS, [coco.parent], source_format="karpathy")
    (tmp_path / "a.txt").write_text("a document\n")
    with pytest.raises(UsageError, match="--splits is for formats of published benchmarks"):
        build(tmp_path / "set", Kind.TEXTS, [tmp_path / "a.txt"], splits=[TRAIN])
