"""Parquet, Arrow, TFRecord and HDF5: divided into units, read without TensorFlow."""

import json
import struct
import sys
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.prepare.formats.reading import Reading
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import arrow, hdf5, parquet, tfrecord
from vlbeit_jax.prepare.formats.base import BadInput

COUNT = 40
PAIRS = [(b"%d" % i, (f"caption {i}",)) for i in range(COUNT)]


def table(**more):
    columns = {"image": [image for image, _ in PAIRS], "caption": [c for _, (c,) in PAIRS]}
    return pa.table(columns | more)


def write_parquet(folder):
    pq.write_table(table(), folder / "a.parquet", row_group_size=3)
    return folder / "a.parquet", "parquet", parquet


def write_arrow(folder):
    with pa.ipc.new_file(folder / "a.arrow", table().schema) as file:
        file.write_table(table(), max_chunksize=3)
    return folder / "a.arrow", "arrow", arrow


def framed(content):
    head = struct.pack("<Q", len(content))
    return head + struct.pack("<I", tfrecord._masked_crc32c(head)) + content + b"crc?"


def example(**features):
    from tensorflow_datasets.proto import tf_example_pb2

    found = cast(Any, tf_example_pb2).Example()
    for name, value in features.items():
        found.features.feature[name].bytes_list.value.append(value)
    return framed(found.SerializeToString())


def write_tfrecord(folder):
    records = [example(jpg=image, caption=text.encode()) for image, (text,) in PAIRS]
    (folder / "a.tfrecord").write_bytes(b"".join(records))
    return folder / "a.tfrecord", "tfrecord", tfrecord


def write_hdf5(folder):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(folder / "a.hdf5", "w") as file:
        kind = h5py.vlen_dtype(np.uint8)
        file["train_jpg"] = np.array([np.frombuffer(i, np.uint8) for i, _ in PAIRS], kind)
        file["train_caption"] = [text for _, (text,) in PAIRS]
    return folder / "a.hdf5", "hdf5", hdf5


@pytest.mark.parametrize("write", [write_parquet, write_arrow, write_tfrecord, write_hdf5])
def test_units_give_what_the_whole_file_gives(tmp_path, monkeypatch, write):
    path, name, module = write(tmp_path)
    whole = Reading(name, path)
    assert whole.pairs == PAIRS and len(whole.plan.units) == 1
    monkeypatch.setattr(module, "UNIT_PICTURES", 7)
    parts = Reading(name, path)
    assert len(parts.plan.units) > 4 and parts.items == whole.items
    assert len({item.key for item in parts.items}) == COUNT
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("write", [write_parquet, write_arrow, write_tfrecord, write_hdf5])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_file_that_is_cut_off_is_damaged(tmp_path, write, kept):
    path, name, _ = write(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(BadInput, match=path.name):
        Reading(name, path)
    (tmp_path / "sound").mkdir()
    sound, _, _ = write(tmp_path / "sound")
    found = Reading(name, path, sound, bad_inputs="skip")
    assert found.pairs == PAIRS and found.skipped == {"bad_input": 1}
    assert found.plan.notes[0].startswith(f"left out: {path}")


def test_a_damaged_length_is_no_end(tmp_path):
    path, name, _ = write_tfrecord(tmp_path)
    content = bytearray(path.read_bytes())
    second = 16 + struct.unpack("<Q", content[:8])[0]
    content[second] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInput, match=f"no record begins at byte {second}"):
        Reading(name, path)


def test_checksums_equal_published_ones():
    """RFC 3720, B.4: CRC-32C of 32 zeros, of 32 ones and of 0 to 31."""
    for content, crc in (
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ):
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        assert tfrecord._masked_crc32c(content) == masked


def test_hugging_face_names_its_labels_and_pictures_beside_a_table(tmp_path):
    (tmp_path / "b.jpg").write_bytes(b"beside")
    (tmp_path.parent / "c.jpg").write_bytes(b"secret")
    struct_of = [
        {"bytes": b"inside", "path": "a.jpg"},
        {"bytes": None, "path": "b.jpg"},
        {"bytes": None, "path": "../c.jpg"},
        None,
    ]
    features = {"picture": {"_type": "Image"}, "label": {"names": ["cat", "dog"]}}
    found = pa.table({"picture": struct_of, "label": [1, 0, 0, 0], "file_name": ["x.jpg"] * 4})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(found.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    read = Reading("parquet", tmp_path / "a.parquet")
    assert [(item.image, item.label) for item in read.items] == [
        (b"inside", "dog"),
        (b"beside", "cat"),
        (None, "cat"),
    ]
    assert read.faults == {"outside_folder": 1}


def test_labelled_texts_of_a_table(tmp_path):
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["n", "p"]}}}})}
    found = pa.table({"text": ["good", "bad"], "label": [1, 0]}).replace_schema_metadata(metadata)
    pq.write_table(found, tmp_path / "a.parquet")
    read = Reading("parquet", tmp_path / "a.parquet", kind="labelled_texts")
    assert [(item.text, item.label) for item in read.items] == [("good", "p"), ("bad", "n")]


def test_vlmos_texts_are_documents(tmp_path):
    found = pa.table({"image": ["None", "None"], "caption": [["one"], ["two"]]})
    with pa.ipc.new_file(tmp_path / "wikibk.arrow", found.schema) as file:
        file.write_table(found)
    assert Reading("arrow", tmp_path / "wikibk.arrow", kind="texts").texts == ["one", "two"]


def test_a_saved_set_is_what_its_state_names(tmp_path):
    for name in ("data-00000-of-00001.arrow", "cache-0.arrow"):
        with pa.ipc.new_stream(tmp_path / name, table().schema) as file:
            file.write_table(table())
    assert len(Reading("arrow", tmp_path).items) == COUNT
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    (tmp_path / "state.json").write_text(json.dumps(state))
    found = Reading("arrow", tmp_path)
    assert found.pairs == PAIRS and found.skipped == {"other_file": 1, "sidecar": 1}


def test_dead_links_are_counted_apart(tmp_path):
    status = ["success", "failed_to_download"] * (COUNT // 2)
    images = [image if i % 2 == 0 else None for i, (image, _) in enumerate(PAIRS)]
    found = pa.table({"jpg": images, "caption": ["c"] * COUNT, "url": ["u"] * COUNT})
    pq.write_table(found.append_column("status", pa.array(status)), tmp_path / "0.parquet")
    read = Reading("parquet", tmp_path / "0.parquet")
    assert len(read.items) == COUNT // 2 == read.plan.items and not read.faults
    assert read.plan.links == {"given": 40, "alive": 20, "failed_to_download": 20}
    pq.write_table(found.drop_columns("jpg"), tmp_path / "links.parquet")
    with pytest.raises(UsageError, match="--input_format=parquet --url_col=url --caption_col=capt"):
        Reading("parquet", tmp_path / "links.parquet", kind="pairs")


def test_hdf5_of_pixels_or_of_unequal_lengths_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["image"] = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(UsageError, match="holds pixels of shape"):
        Reading("hdf5", tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["jpg"], file["caption"] = [b"x"] * 2, [b"c"] * 3
    with pytest.raises(BadInput, match="different lengths"):
        Reading("hdf5", tmp_path / "b.hdf5")


def test_a_missing_library_is_named_before_anything_else(tmp_path, monkeypatch):
    path, name, _ = write_hdf5(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"is an HDF5 file.*pip install 'vlbeit-jax\[formats\]'"):
        Reading(name, path)


def test_an_hdf5_file_that_states_more_than_it_can_hold_is_damaged(tmp_path):
    """The plan would have as many units otherwise, and never end."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        kind = h5py.vlen_dtype(np.uint8)
        rows = file.create_dataset("jpg", (77,), kind, maxshape=(None,))
        rows[0] = np.frombuffer(b"x", np.uint8)
    content = path.read_bytes()
    stated = np.array([77], "<u8").tobytes()
    assert content.count(stated) >= 1
    path.write_bytes(content.replace(stated, np.array([2**50], "<u8").tobytes()))
    with pytest.raises(BadInput, match=r"a.hdf5: .*smaller than the data sets.*1125899906842624"):
        Reading("hdf5", path, kind="images")
