"""Sets that TensorFlow Datasets has prepared become records, without TensorFlow."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from tests.make_data import build, encoded, picture, records
from vlbeit_jax.data.identity import TEST, TRAIN, VALIDATION
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Kind

JPEG = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
# The features of imagenet2012 and coco_captions, as their builders state them.
IMAGENET = {
    "image": JPEG,
    "label": tfds.features.ClassLabel(names=["n01440764", "n01443537", "n01484850"]),
    "file_name": tfds.features.Text(),
}
COCO = {
    "image": JPEG,
    "image/filename": tfds.features.Text(),
    "image/id": np.int64,
    "captions": tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()}),
}
TEXTS = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["bad", "good"])}


def write(folder, features, splits, file_format="array_record"):
    """A prepared set of TFDS: ``splits`` has the examples of each."""
    folder.mkdir()
    features = tfds.features.FeaturesDict(features)
    serializer = ExampleSerializer(features.get_serialized_info())
    infos = []
    for split, examples in splits.items():
        path = folder / f"made-{split}.{file_format}-00000-of-00001"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for example in examples:
            writer.write(serializer.serialize_example(features.encode_example(example)))
        writer.close()
        template = tfds.core.ShardedFileTemplate(
            data_dir=epath.Path(folder),
            dataset_name="made",
            split=split,
            filetype_suffix=file_format,
        )
        infos.append(
            tfds.core.SplitInfo(
                name=split, shard_lengths=[len(examples)], num_bytes=0, filename_template=template
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=infos,
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        check_data=False,
    )
    return folder


def photo(number):
    return encoded(picture(number), "JPEG")


def labelled(numbers, label=None):
    return [
        {
            "image": photo(number),
            "label": number % 3 if label is None else label,
            "file_name": f"picture_{number}.JPEG",
        }
        for number in numbers
    ]


def test_imagenet2012_has_its_classes_and_no_unlabelled_test_split(tmp_path):
    splits = {
        "train": labelled(range(6)),
        "validation": labelled([7, 8]),
        "test": labelled([9], label=-1),
    }
    source = write(tmp_path / "made", IMAGENET, splits)
    meta = build(tmp_path / "set", Kind.LABELLED_IMAGES, [source], source_format="tfds")
    assert meta["counts"] == {TRAIN: 6, VALIDATION: 2}
    assert meta["classes"] == IMAGENET["label"].names
    found = {each["id"].decode(): each for each in records(tmp_path / "set")}
    assert found["picture_4.JPEG"]["label"] == b"n01443537"
    assert found["picture_4.JPEG"]["image"] == photo(4)  # The very bytes.


def test_coco_captions_joins_restval(tmp_path):
    def captioned(*numbers):
        return [
            {
                "image": photo(number),
                "image/filename": f"COCO_{number}.jpg",
                "image/id": number,
                "captions": [{"id": i, "text": f"{number}, caption {i} "} for i in range(5)],
            }
            for number in numbers
        ]

    splits = {
        "train": captioned(1, 2),
        "restval": captioned(3),
        "val": captioned(4),
        "test": captioned(5),
    }
    source = write(tmp_path / "made", COCO, splits)
    meta = build(tmp_path / "set", Kind.PAIRS, [source], source_format="tfds")
    assert meta["counts"] == {TEST: 1, TRAIN: 3, VALIDATION: 1}
    (record,) = records(tmp_path / "set", TEST)
    assert record["id"] == b"5" and len(record["captions"]) == 5
    assert record["captions"][4] == b"5, caption 4"


def test_texts_with_labels_and_a_hash_where_there_is_only_training(tmp_path):
    examples = [{"text": f"document {i}", "label": i % 2} for i in range(40)]
    source = write(tmp_path / "made", TEXTS, {"train": examples})
    meta = build(
        tmp_path / "set", Kind.LABELLED_TEXTS, [source], source_format="tfds", validation_share=0.5
    )
    assert meta["classes"] == ["bad", "good"] and sum(meta["counts"].values()) == 40
    assert meta["counts"][VALIDATION] > 5
    splits = {"train": examples, "test": examples[:3]}
    source = write(tmp_path / "again", TEXTS, splits)
    meta = build(tmp_path / "b", Kind.LABELLED_TEXTS, [source], source_format="tfds")
    assert meta["counts"] == {TEST: 3, TRAIN: 37}  # A text that is held out is left out.
    assert meta["left_out"] == {"text_in_test": 3}


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UsageError, match="no dataset_info.json here; give the folder of one version"
    ):
        build(tmp_path / "set", Kind.PAIRS, [tmp_path / "empty"], source_format="tfds")
    source = write(tmp_path / "made", IMAGENET, {"train": labelled([1])}, "tfrecord")
    with pytest.raises(
        UsageError, match="format tfrecord.*tfds build .* --file_format=array_record"
    ):
        build(tmp_path / "set", Kind.LABELLED_IMAGES, [source], source_format="tfds")
    source = write(tmp_path / "uncaptioned", IMAGENET, {"train": labelled([1])})
    with pytest.raises(UsageError, match=r"uncaptioned: train\[0\]: record .*no 'captions'"):
        build(tmp_path / "set", Kind.PAIRS, [source], source_format="tfds")
