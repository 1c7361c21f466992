"""BEiT-3's fine-tuned files become runs with its text tokenizer, and give its own outputs."""

import io
import json

import numpy as np
import pytest
import sentencepiece

import vlbeit_jax
from tests.convert.named import tensor_file
from tests.convert.test_beit3_heads import (
    ANSWERS,
    CONFIG,
    HEADS,
    NET,
    TEXTS,
    batch,
    captioning_tensors,
    reasoning_tensors,
    retrieval_tensors,
    vqa_tensors,
)
from tests.references import beit3 as reference
from vlbeit_jax.convert.finetuned import jax_outputs, read_finetuned
from vlbeit_jax.convert.formats import IMPORTS
from vlbeit_jax.convert.formats.beit3_words import read_words
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Special

PIECES = 32
SENTENCES = ("a red disc above a blue bar", "two dogs play on the green grass", "is it a cat?")
TEXT = "a blue cat above the dogs, Zürich"


def trained(path, **changes):
    """A SentencePiece file with BEiT-3's first pieces, <unk>, <s> and </s>, and no padding."""
    model = io.BytesIO()
    settings = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1, "vocab_size": PIECES}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=model,
        minloglevel=2,
        **{"model_type": "unigram"} | settings | changes,
    )
    path.write_bytes(model.getvalue())
    return path


@pytest.fixture(scope="module")
def spm(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("words") / "beit3.spm")


def fairseqs_row(spm, text, length):
    """A text as BEiT-3 numbers it: CLS 0, padding 1, SEP 2, unknown 3, pieces one higher."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(spm)).encode(text)
    row = [0, *(each + 1 if each else 3 for each in pieces), 2]
    return row + [1] * (length - len(row))


def test_a_text_has_the_same_pieces_and_each_its_own_row(spm, tmp_path):
    words = read_words(spm)
    words.save(tmp_path)
    tokenizer = TextTokenizer(tmp_path / "text_tokenizer")
    assert tokenizer.vocabulary == PIECES + 2 == len(words.rows) == len({*words.rows})
    ours = tokenizer.encode_row(TEXT, 48)
    theirs = fairseqs_row(spm, TEXT, 48)
    assert words.rows[ours].tolist() == theirs and 3 in theirs and Special.UNKNOWN in ours
    assert words.rows[Special.MASK] == PIECES + 1  # fairseq's last number.
    assert tokenizer.decode(ours.tolist()).startswith("a blue cat above the dogs")


KINDS = {
    "beit3-vqa": (vqa_tensors, {"logits"}),
    "beit3-nlvr2": (reasoning_tensors, {"logits"}),
    "beit3-retrieval": (retrieval_tensors, {"image_vector", "text_vector"}),
    "beit3-captioning": (captioning_tensors, {"logits"}),
}


def imported(kind, folder, spm, change=None, **options):
    """A run of a file of BEiT-3 with random tensors, and the file's tensors."""
    tensors = KINDS[kind][0]() | (change or {})
    (folder / "answer2label.txt").write_text(
        "".join(
            json.dumps({"answer": f"answer{each}", "label": each}) + "\n"
            for each in reversed(range(ANSWERS))
        )
    )
    given = {"heads": HEADS, "text_tokenizer": str(spm)}
    if kind == "beit3-vqa":
        given["answers"] = str(folder / "answer2label.txt")
    file = tensor_file({name: value.shape for name, value in tensors.items()}, tensors)
    options = ImportOptions(**given | options)
    report = IMPORTS[kind].read(file, folder / "beit3.pth", options, folder / "run")
    return report, tensors


def expected(kind, tensors, image, second, theirs, valid):
    """Outputs of the independent network on BEiT-3's own numbers."""
    wide = {name: value.astype(np.float64) for name, value in tensors.items()}
    image, second = image / 127.5 - 1, second / 127.5 - 1
    if kind == "beit3-vqa":
        return {"logits": reference.answer_logits(wide, NET, image, theirs, valid)}
    if kind == "beit3-nlvr2":
        found = reference.truth_logits(wide, NET, [image, second], theirs, valid)
        return {"logits": found}
    if kind == "beit3-retrieval":
        vectors = reference.embeddings(wide, NET, image, theirs, valid)
        return dict(zip(("image_vector", "text_vector"), vectors, strict=True))
    return {"logits": reference.caption_logits(wide, NET, image, theirs, valid)}


@pytest.mark.parametrize(
    "kind",
    [each if each == "beit3-vqa" else pytest.param(each, marks=pytest.mark.slow) for each in KINDS],
)
def test_outputs_are_those_of_the_published_network(kind, spm, tmp_path):
    report, tensors = imported(kind, tmp_path, spm)
    assert not report.fresh and not report.dropped and "in the order of our" in report.notes[0]
    source = read_finetuned(tmp_path / "run", "raw")
    texts = [SENTENCES[0], SENTENCES[2], "a dog"]
    tokenizer = source.opened.text
    ours = np.stack([tokenizer.encode_row(text, TEXTS) for text in texts])
    rows = read_words(spm).rows
    image, *_ = batch()
    second = image[::-1].copy()
    found = jax_outputs(source, {"image": image, "second_image": second, "text": ours})
    wanted = expected(kind, tensors, image, second, rows[ours], ours != Special.PAD)
    assert set(found) >= KINDS[kind][1]
    # The control: BEiT-3's numbers belong to other rows here.
    other = expected(kind, tensors, image, second, ours, ours != Special.PAD)
    for name in KINDS[kind][1]:
        mine, right, wrong = found[name], wanted[name], other[name]
        if kind == "beit3-captioning":  # A logit for each of our pieces, at real positions.
            real = ours != Special.PAD
            mine = mine[..., : len(rows)][real]
            right, wrong = right[..., rows][real], wrong[..., rows][real]
        assert np.abs(mine - right).max() < 2e-5, name
        if name != "image_vector":
            assert np.abs(mine - wrong).max() > 1e-3, name


@pytest.mark.slow
def test_questions_are_answered_in_python(spm, tmp_path):
    imported("beit3-vqa", tmp_path, spm)
    model = vlbeit_jax.load(tmp_path / "run")
    image, *_ = batch()
    ((best, share), *_), *_ = model.answer(list(image), [SENTENCES[0]] * len(image), top=3)
    assert best.startswith("answer") and 0 < share < 1


@pytest.mark.slow
def test_a_pretrained_file_gets_its_words_too(spm, tmp_path):
    """So its words need not start fresh: padding is word piece 0, as in prepared data."""
    tensors = captioning_tensors()
    file = tensor_file({name: value.shape for name, value in tensors.items()}, tensors)
    options = ImportOptions(heads=HEADS, text_tokenizer=str(spm), codes=40)
    IMPORTS["beit3"].read(file, tmp_path / "x.pth", options, tmp_path / "run")
    model = vlbeit_jax.load(tmp_path / "run")
    assert model.config.pad == Special.PAD and model.config.vocabulary == PIECES + 2
    assert np.isfinite(model.encode(texts=[TEXT]).text).all()


@pytest.mark.parametrize(
    ("kind", "change", "options", "said"),
    [
        ("beit3-vqa", {}, {"text_tokenizer": None}, "give BEiT-3's SentencePiece file, beit3.spm"),
        ("beit3-vqa", {}, {"answers": None}, "--answers missing: the file's head has 31 outputs"),
        (
            "beit3-vqa",
            {"head.3.bias": np.zeros(3)},
            {},
            "holds 31 answers, but the file's head has 3",
        ),
        (
            "beit3-nlvr2",
            {"beit3.text_embed.weight": np.zeros((PIECES + 1, CONFIG.width))},
            {},
            r"text_embed.weight has 33 rows, but the text tokenizer needs 34",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(kind, change, options, said, spm, tmp_path):
    with pytest.raises(UsageError, match=said):
        imported(kind, tmp_path, spm, change, **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"answer": "The cat", "label": 0}, {"answer": "2", "label": 1}], "must be written 'cat'"),
        ([{"answer": "cat", "label": 0}, {"answer": "2", "label": 2}], "not the numbers from 0"),
        ([{"answer": "cat", "label": 0}, {"answer": "cat", "label": 1}], "'cat' is there twice"),
    ],
)
def test_answers_that_no_prediction_can_equal_are_refused(lines, said, spm, tmp_path):
    path = tmp_path / "answers.txt"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UsageError, match=said):
        imported("beit3-vqa", tmp_path, spm, answers=str(path))


def test_a_file_of_another_task_is_refused(spm, tmp_path):
    tensors = retrieval_tensors()
    file = tensor_file({name: value.shape for name, value in tensors.items()}, tensors)
    with pytest.raises(UsageError, match="not a BEiT-3 network for questions: head.3.bias missing"):
        IMPORTS["beit3-vqa"].read(file, tmp_path / "x", ImportOptions(), tmp_path / "run")


@pytest.mark.parametrize("changes", [{"model_type": "bpe"}, {"unk_id": 1, "bos_id": 0}])
def test_another_tokenizer_is_refused(changes, tmp_path):
    path = trained(tmp_path / "other.spm", **changes)
    with pytest.raises(UsageError, match="not BEiT-3's file, which is a unigram model"):
        read_words(path)
    path.write_bytes(b"\xff\xff no protobuf")
    with pytest.raises(UsageError, match="no SentencePiece file"):
        read_words(path)
