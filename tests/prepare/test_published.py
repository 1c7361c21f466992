"""Official files of benchmarks: splits stand, nothing is lost, and each fault is named."""

import json

import pytest

from tests.make_data import build, records
from tests.prepare import benchmarks
from tests.prepare.benchmarks import MADE, prepare
from vlbeit_jax.data.identity import PICTURES, TEST, TEXTS, TRAIN, VALIDATION, picture_digest
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import FORMATS, vqav2
from vlbeit_jax.prepare.formats.base import Options, read_all
from vlbeit_jax.types import Kind


def by_id(folder, split):
    return {record["id"].decode(): record for record in records(folder / "set", split)}


def texts(record, name):
    return [each.decode() for each in record[name]]


def test_vqav2_keeps_ids_answers_and_splits(tmp_path):
    source = benchmarks.vqav2(tmp_path / "vqa")
    meta = prepare(tmp_path, source, "vqav2")
    assert meta["counts"] == {TRAIN: 8, VALIDATION: 6} and not meta["left_out"]
    assert meta["people_counts"] == {TRAIN: {"10": 8}, VALIDATION: {"10": 6}}
    assert meta["answer_counts"][TRAIN] == {"dog": 8}
    found = by_id(tmp_path, TRAIN)["102001"]
    name = "train2014/COCO_train2014_000000000102.jpg"
    assert found["text"] == b"what is in picture 102, part 1?"
    assert texts(found, "answers")[:3] == ["dog", "a dog", "cat"] and len(found["answers"]) == 10
    assert found["source"].decode() == name and found["image"] == (source / name).read_bytes()
    assert {key[:3] for key in by_id(tmp_path, VALIDATION)} == {"200", "201", "202"}


def test_vqav2_trainval_holds_back_some_pictures_of_val(tmp_path):
    source = benchmarks.vqav2(tmp_path / "vqa", train=2, val=12)
    meta = prepare(tmp_path, source, "vqav2-trainval")
    # A tenth of 12 pictures, rounded up.
    assert meta["counts"] == {TRAIN: 2 * (2 + 10), VALIDATION: 2 * 2}
    held = {key[:3] for key in by_id(tmp_path, VALIDATION)}
    assert len(held) == 2 and not held & {key[:3] for key in by_id(tmp_path, TRAIN)}
    again = build(
        tmp_path / "again",
        Kind.QUESTIONS,
        [source],
        source_format="vqav2-trainval",
        splits=[VALIDATION],
    )
    assert again["counts"] == {VALIDATION: 4}


def test_karpathy_coco_joins_restval_and_keeps_every_caption(tmp_path):
    source = benchmarks.karpathy_coco(tmp_path / "coco")
    meta = prepare(tmp_path, source, "karpathy")
    assert meta["counts"] == {TEST: 2, TRAIN: 4, VALIDATION: 2}
    found = by_id(tmp_path, TEST)["5006"]
    wanted = [f"picture 6 has caption {turn}." for turn in range(5)] + ["A man riding a wave."]
    assert texts(found, "captions") == wanted
    assert found["source"] == b"val2014/COCO_val2014_000000000006.jpg"
    assert set(by_id(tmp_path, TRAIN)) == {"5000", "5001", "5002", "5003"}
    # The caption that training has too stays, is counted, and is no reason to refuse the set.
    assert meta["captions_in_training"] == {TEST: 1, VALIDATION: 1} and not meta["left_out"]
    opened = open_set(str(tmp_path / "set"))
    assert opened.keys(PICTURES, TEST).shape[1] == 2
    assert opened.keys(TEXTS, TEST).shape[1] == 0
    assert opened.keys(TEXTS, TRAIN).shape[1] == 4 * 5 + 1


def test_karpathy_flickr30k_names_no_folder(tmp_path):
    source = benchmarks.karpathy_flickr30k(tmp_path / "flickr")
    meta = prepare(tmp_path, source, "karpathy")
    assert meta["counts"] == {TEST: 2, TRAIN: 4, VALIDATION: 2}
    assert by_id(tmp_path, TEST)["5006"]["source"] == b"flickr30k-images/5006.jpg"


@pytest.mark.parametrize("val", ["folders", "solution", "kit"])
def test_imagenet_reads_each_layout_of_val(tmp_path, val):
    source = benchmarks.imagenet(tmp_path / "imagenet", val)
    meta = prepare(tmp_path, source, "imagenet")
    assert meta["classes"] == sorted(benchmarks.WNIDS)
    assert meta["counts"] == {TRAIN: 6, VALIDATION: 4}
    found = {key: each["label"].decode() for key, each in by_id(tmp_path, VALIDATION).items()}
    assert found == {f"ILSVRC2012_val_{stem}": wnid for stem, wnid in benchmarks.VAL.items()}
    for key, record in by_id(tmp_path, TRAIN).items():
        assert key.partition("_")[0] == record["label"].decode()


def test_imagenet_classes_have_names_if_a_file_says_them(tmp_path):
    source = benchmarks.imagenet(tmp_path / "imagenet")
    lines = [f"{wnid} {name}" for wnid, name in benchmarks.SYNSETS.items()]
    (source / "LOC_synset_mapping.txt").write_text("\n".join(reversed(lines)) + "\n")
    meta = prepare(tmp_path, source, "imagenet")
    assert meta["classes"] == lines  # In the order of the WordNet IDs, whatever the file's is.
    (source / "LOC_synset_mapping.txt").write_text(lines[0] + "\n")
    with pytest.raises(UsageError, match="record 'n02012849_.*class n02012849 is not in the file"):
        build(tmp_path / "b", Kind.LABELLED_IMAGES, [source], source_format="imagenet")


def test_odd_shapes_of_a_benchmark_are_kept(tmp_path):
    from tests.make_data import encoded, picture

    source = benchmarks.imagenet(tmp_path / "imagenet")
    path = source / "train" / benchmarks.WNIDS[0] / "thin.JPEG"
    path.write_bytes(encoded(picture(77, 8, 200), "JPEG"))
    assert prepare(tmp_path, source, "imagenet")["counts"][TRAIN] == 7


def test_a_training_picture_that_is_held_out_is_left_out(tmp_path):
    source = benchmarks.imagenet(tmp_path / "imagenet")
    held = next((source / "val").rglob("*.JPEG")).read_bytes()
    (source / "train" / benchmarks.WNIDS[0] / "copy.JPEG").write_bytes(held)
    twice = source / "train" / benchmarks.WNIDS[1]
    (twice / "b.JPEG").write_bytes(next(twice.glob("n*.JPEG")).read_bytes())
    meta = prepare(tmp_path, source, "imagenet")
    assert meta["left_out"] == {"picture_in_validation": 1}
    assert meta["counts"] == {TRAIN: 7, VALIDATION: 4}  # One picture twice in training is kept.
    assert "copy" not in by_id(tmp_path, TRAIN)
    digest = picture_digest(held)
    assert [each["sha256"].decode() for each in records(tmp_path / "set", VALIDATION)].count(digest)


def test_some_splits_need_only_their_files(tmp_path):
    source = benchmarks.imagenet(tmp_path / "imagenet")
    (source / "train").rename(tmp_path / "elsewhere")
    meta = prepare(tmp_path, source, "imagenet", splits=[VALIDATION])
    assert meta["counts"] == {VALIDATION: 4}
    with pytest.raises(
        UsageError, match="imagenet: there is no train/ here, which holds the train"
    ):
        build(tmp_path / "b", Kind.LABELLED_IMAGES, [source], source_format="imagenet")


def test_a_benchmark_stays_whole_apart_from_other_sets(tmp_path):
    """What others train on is not left out of its test part; what they hold out, of training."""
    source = benchmarks.karpathy_coco(tmp_path / "coco")
    lines = [
        {"image": "val2014/COCO_val2014_000000000006.jpg", "captions": ["own"], "split": "train"},
        {"image": "train2014/COCO_train2014_000000000000.jpg", "captions": ["b"], "split": "test"},
    ]
    (tmp_path / "coco" / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    build(tmp_path / "own", Kind.PAIRS, [tmp_path / "coco" / "own.jsonl"], source_format="jsonl")
    meta = prepare(tmp_path, source, "karpathy", apart_from=[str(tmp_path / "own")])
    assert meta["counts"] == {TEST: 2, TRAIN: 3, VALIDATION: 2}
    assert meta["left_out"] == {"held_out_in_another_set": 1}


def test_questions_to_predict_for_come_in_the_order_of_their_file(tmp_path):
    source = benchmarks.vqav2(tmp_path / "vqa")
    found = list(vqav2.read_questions(source, "test"))
    assert [item.key for item in found] == ["301000", "300000", "301001", "300001"]
    assert all(item.image and item.text and not item.answers for item in found)
    assert [item.key for item in vqav2.read_questions(source, "test-dev")] == ["301000", "300000"]
    (source / "test2015" / "COCO_test2015_000000000300.jpg").unlink()
    with pytest.raises(
        UsageError, match="question 300000 is about test2015/COCO_test2015_0000000003"
    ):
        list(vqav2.read_questions(source, "test"))


@pytest.mark.parametrize("name", MADE)
def test_the_count_is_that_of_the_items(tmp_path, name):
    source = MADE[name](tmp_path / "source")
    assert FORMATS[name].plan([source], Options()).items == len(
        list(read_all(FORMATS[name], [source]))
    )
