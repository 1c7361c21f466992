"""Indexes: captions of one picture are one record, and no file outside the folder is read."""

import csv
import gzip
import json
import random

import pytest

from tests.make_data import documents
from tests.prepare.formats.reading import Reading
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import index
from vlbeit_jax.prepare.formats.base import BadInput


def pictures(folder, count):
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / "images" / f"{number}.jpg").write_bytes(b"%d" % number)


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps({"image": i, "caption": c}) + "\n" for i, c in rows))


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])


def write_tsv(path, rows):
    path.write_text("".join(f"{image}\t{caption}\n" for image, caption in rows))


def write_token(path, rows):
    path.write_text("".join(f"{image}#{n}\t{text}\n" for n, (image, text) in enumerate(rows)))


def write_array(path, rows):
    path.write_text(json.dumps([{"image": image, "caption": text} for image, text in rows]))


def write_beit3(path, rows):
    lines = [{"image_path": i, "text_segment": c, "image_id": i[7:-4]} for i, c in rows]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


WRITERS = {
    "json": write_jsonl,
    "csv": write_csv,
    "tsv": write_tsv,
    "flickr": write_token,
    "beit3": write_beit3,
}


@pytest.mark.parametrize("name", [*WRITERS, "array"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_all_captions_of_a_picture_are_one_record_however_the_index_is_cut(
    tmp_path, monkeypatch, name, shuffled
):
    pictures(tmp_path, 40)
    draw = random.Random(1)
    rows = [(f"images/{i}.jpg", f"{i} ü {j}") for i in range(40) for j in range(draw.randint(1, 4))]
    if shuffled:
        draw.shuffle(rows)
    wanted: dict[str, list[str]] = {}
    for image, caption in rows:
        wanted.setdefault(image, []).append(caption)
    path = tmp_path / "index"
    (write_array if name == "array" else WRITERS[name])(path, rows)
    form = "json" if name == "array" else name
    whole = Reading(form, path)
    assert {item.source: list(item.captions) for item in whole.items} == wanted
    assert [item.source for item in whole.items] == list(wanted)
    assert all(item.image == item.source[7:-4].encode() for item in whole.items)
    monkeypatch.setattr(index, "UNIT_PICTURES", 7)
    parts = Reading(form, path)
    assert len(parts.plan.units) > 4 and parts.items == whole.items
    assert len({item.key for item in parts.items}) == 40


def test_no_file_outside_the_folder_is_read(tmp_path):
    pictures(tmp_path / "set", 1)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "set" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "set" / "inner.jpg").symlink_to("images/0.jpg")
    names = ["../secret.jpg", str(tmp_path / "secret.jpg"), "link.jpg", "none.jpg", "\0.jpg"]
    names += ["images/0.jpg", "inner.jpg", str(tmp_path / "set/images/0.jpg")]
    for writer, form in ((write_jsonl, "json"), (write_array, "json"), (write_csv, "csv")):
        usable = [each for each in names if "\0" not in each or form == "json"]
        writer(tmp_path / "set" / "index", [(each, "words") for each in usable])
        found = Reading(form, tmp_path / "set" / "index")
        assert found.faults == {
            "outside_folder": 3,
            "missing_file": 2 if form == "json" else 1,
        }
        assert [item.image for item in found.items] == [b"0"] * 3


@pytest.mark.parametrize("form", ["json", "tsv"])
def test_a_compressed_index_gives_the_same_records(tmp_path, monkeypatch, form):
    pictures(tmp_path, 20)
    rows = [(f"{'./' * (j % 2)}images/{i}.jpg", f"{i} {j}") for j in range(3) for i in range(20)]
    WRITERS[form](tmp_path / "index", rows)
    (tmp_path / "index.gz").write_bytes(gzip.compress((tmp_path / "index").read_bytes()))
    monkeypatch.setattr(index, "UNIT_PICTURES", 7)
    plain, packed = Reading(form, tmp_path / "index"), Reading(form, tmp_path / "index.gz")
    assert (
        plain.pairs
        == packed.pairs
        == [(b"%d" % i, tuple(f"{i} {j}" for j in range(3))) for i in range(20)]
    )


def test_images_says_where_the_pictures_are(tmp_path):
    pictures(tmp_path / "elsewhere", 1)
    write_tsv(tmp_path / "index.tsv", [("0.jpg", "words")])
    assert Reading("tsv", tmp_path / "index.tsv").faults == {"missing_file": 1}
    found = Reading("tsv", tmp_path / "index.tsv", images=str(tmp_path / "elsewhere/images"))
    assert found.pairs == [(b"0", ("words",))]


def test_cells_in_quotes_may_have_several_lines(tmp_path, monkeypatch):
    pictures(tmp_path, 30)
    rows = [(f"images/{i}.jpg", f'line "{i}"\nand, another') for i in range(30)]
    write_csv(tmp_path / "a.csv", rows)
    monkeypatch.setattr(index, "UNIT_PICTURES", 4)
    found = Reading("csv", tmp_path / "a.csv")
    assert len(found.plan.units) == 8
    assert [item.captions for item in found.items] == [(caption,) for _, caption in rows]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("images/0.jpg,words\n", {}),
        ("words;images/0.jpg\n", {}),
        ("image_name| comment_number| comment\nimages/0.jpg| 0| words\n", {}),
        ("id,image,title\n7,images/0.jpg,words\n", {}),
        ("\ufeffimage,caption\r\nimages/0.jpg,words\r\n", {}),
        ("a,b\nimages/0.jpg,words\n", {"image_column": "a", "caption_column": "b"}),
        ("1,no,images/0.jpg,words and words\n", {"image_column": "3", "caption_column": "2"}),
    ],
)
def test_columns_are_told_by_name_content_or_option(tmp_path, content, options):
    pictures(tmp_path, 1)
    (tmp_path / "a.csv").write_text(content)
    found = Reading("csv", tmp_path / "a.csv", **options)
    assert found.pairs in ([(b"0", ("words",))], [(b"0", ("no",))]) and not found.faults


def test_unknown_columns_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("left,right\n1,2\n")
    with pytest.raises(UsageError, match="--image_column"):
        Reading("csv", tmp_path / "a.csv")
    with pytest.raises(UsageError, match="did you mean 'left'"):
        Reading("csv", tmp_path / "a.csv", image_column="lfet")
    (tmp_path / "a.jsonl").write_text('{"left": 1, "right": 2}\n')
    with pytest.raises(UsageError, match="left, right"):
        Reading("json", tmp_path / "a.jsonl")


def test_a_quote_that_is_not_closed_is_counted(tmp_path):
    """The CSV reader takes no cell of more than 131,072 characters."""
    pictures(tmp_path, 1)
    rows = "images/0.jpg,words\n" * 10_000
    (tmp_path / "a.csv").write_text(f'image,caption\nimages/0.jpg,"words\n{rows}')
    found = Reading("csv", tmp_path / "a.csv")
    assert found.faults == {"bad_line": 1} and found.pairs == [(b"0", ("words",))]


def test_a_row_that_lacks_cells_or_is_no_json_is_counted(tmp_path):
    pictures(tmp_path, 1)
    (tmp_path / "a.tsv").write_text("images/0.jpg\twords\nimages/0.jpg\n\n")
    assert Reading("tsv", tmp_path / "a.tsv").faults == {"bad_line": 1}
    (tmp_path / "a.jsonl").write_text('{"image": "images/0.jpg", "caption": "a"}\n[1]\n{"image"\n')
    assert Reading("json", tmp_path / "a.jsonl").faults == {"bad_line": 2}


def test_indexes_in_json_that_are_damaged_are_named(tmp_path):
    for form, content in (
        ("coco", '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"id": 2}]}'),
        ("coco", '{"images": [], "annotations": '),
        ("visual_genome", '[{"id": 1}]'),
        ("json", '[{"image": "a.jpg", "caption": "b"}'),
    ):
        (tmp_path / "index.json").write_text(content)
        with pytest.raises(BadInput, match="index.json"):
            Reading(form, tmp_path / "index.json")


def test_large_json_is_streamed(tmp_path, monkeypatch):
    pytest.importorskip("ijson", reason="ijson is not installed")
    from vlbeit_jax.prepare.formats import json_values

    pictures(tmp_path, 3)
    coco = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(3)],
        "annotations": [{"image_id": i % 3, "caption": f" c{i} "} for i in range(6)],
    }
    (tmp_path / "captions.json").write_text(json.dumps(coco))
    small = Reading("coco", tmp_path / "captions.json")
    assert small.pairs == [(b"%d" % i, (f"c{i}", f"c{i + 3}")) for i in range(3)]
    monkeypatch.setattr(json_values, "LARGE", 0)
    assert Reading("coco", tmp_path / "captions.json").items == small.items
    (tmp_path / "cut.json").write_text(json.dumps(coco)[:-9])
    with pytest.raises(BadInput, match=r"cut.json: cannot be read as JSON"):
        Reading("coco", tmp_path / "cut.json")


def test_pictures_of_coco_are_beside_its_annotations(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "0.jpg").write_bytes(b"0")
    coco = {
        "images": [{"id": 0, "file_name": "0.jpg"}],
        "annotations": [{"image_id": 0, "caption": "c"}],
    }
    path = tmp_path / "annotations" / "captions_val2017.json"
    path.write_text(json.dumps(coco))
    assert Reading("coco", path).pairs == [(b"0", ("c",))]


def test_beit3_texts_are_numbers_of_its_model(tmp_path):
    """The numbers are XLM-RoBERTa's: those of the model, moved by one."""
    import sentencepiece

    pictures(tmp_path, 2)
    model = str(tmp_path / "beit3.model")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(documents(50)),
        model_prefix=model.removesuffix(".model"),
        vocab_size=200,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=model).encode("a red dog")
    path = tmp_path / "coco.jsonl"
    rows = [([number + 1 for number in pieces], 0), (None, 1), ([0, 2], 1)]
    path.write_text(
        "".join(
            json.dumps({"image_path": f"images/{i}.jpg", "text_segment": t, "image_id": i}) + "\n"
            for t, i in rows
        )
    )
    with pytest.raises(UsageError, match="--sentencepiece=beit3.spm"):
        Reading("beit3", path)
    found = Reading("beit3", path, sentencepiece=model)
    assert found.pairs == [(b"0", ("a red dog",)), (b"1", ())]
    with pytest.raises(UsageError, match="cannot be read"):
        Reading("beit3", path, sentencepiece=str(tmp_path / "none.spm"))
