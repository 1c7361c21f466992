"""The whole path of texts in a script without spaces: prepare, train a tokenizer, pack rows."""

import numpy as np
import pytest

from tests.make_data import build, records
from vlbeit_jax.config.streams import TextStreamConfig
from vlbeit_jax.data.source import TRAIN, VALIDATION, open_set
from vlbeit_jax.data.sources import open_sources
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.pack import pack_texts
from vlbeit_jax.prepare.text_tokenizer import SENTENCE_END, train_text_tokenizer
from vlbeit_jax.types import Kind, Special

# The Analects (論語), books 1, 2 and 4, from the fifth century BC on. Blank lines are between
# paragraphs.
ANALECTS = """
子曰：「學而時習之，不亦說乎？有朋自遠方來，不亦樂乎？人不知而不慍，不亦君子乎？」

有子曰：「其為人也孝弟，而好犯上者，鮮矣；不好犯上，而好作亂者，未之有也。君子務本，本立而道生。孝弟也者，其為仁之本與！」

子曰：「巧言令色，鮮矣仁！」

曾子曰：「吾日三省吾身：為人謀而不忠乎？與朋友交而不信乎？傳不習乎？」

子曰：「道千乘之國：敬事而信，節用而愛人，使民以時。」

子曰：「弟子入則孝，出則弟，謹而信，汎愛眾，而親仁。行有餘力，則以學文。」

子曰：「君子不重則不威，學則不固。主忠信，無友不如己者，過則勿憚改。」

曾子曰：「慎終追遠，民德歸厚矣。」

子曰：「父在，觀其志；父沒，觀其行；三年無改於父之道，可謂孝矣。」

子曰：「君子食無求飽，居無求安，敏於事而慎於言，就有道而正焉，可謂好學也已。」

子曰：「不患人之不己知，患不知人也。」

子曰：「為政以德，譬如北辰，居其所而眾星共之。」

子曰：「吾十有五而志于學，三十而立，四十而不惑，五十而知天命，六十而耳順，七十而從心所欲，不踰矩。」

子曰：「溫故而知新，可以為師矣。」

子曰：「君子不器。」

子曰：「君子周而不比，小人比而不周。」

子曰：「學而不思則罔，思而不學則殆。」

子曰：「由！誨女知之乎？知之為知之，不知為不知，是知也。」

子曰：「人而無信，不知其可也。大車無輗，小車無軏，其何以行之哉？」

子曰：「里仁為美。擇不處仁，焉得知？」

子曰：「朝聞道，夕死可矣。」

子曰：「君子懷德，小人懷土；君子懷刑，小人懷惠。」

子曰：「君子喻於義，小人喻於利。」

子曰：「見賢思齊焉，見不賢而內自省也。」

子曰：「父母在，不遠遊，遊必有方。」

子曰：「君子欲訥於言而敏於行。」

子曰：「德不孤，必有鄰。」
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Texts, their tokenizer and their rows."""
    folder = tmp_path_factory.mktemp("analects")
    (folder / "analects.txt").write_text(ANALECTS.lstrip(), encoding="utf-8")
    build(folder / "texts", Kind.TEXTS, [folder / "analects.txt"], validation_share=0.2)
    train_text_tokenizer(folder / "tokenizer", [str(folder / "texts")], 0, 10**6, coverage=1.0)
    tokenizer = TextTokenizer(folder / "tokenizer")
    pack_texts(folder / "rows", [str(folder / "texts")], tokenizer, 32)
    return folder, tokenizer


def test_each_paragraph_is_a_document(prepared):
    folder, _ = prepared
    texts = {record["text"].decode() for record in records(folder / "texts")}
    assert texts == set(ANALECTS.strip().split("\n\n")) and len(texts) == 27


def test_pieces_are_learnt_without_spaces(prepared):
    folder, tokenizer = prepared
    pieces = {tokenizer.piece(i) for i in range(len(Special) + 256, tokenizer.vocabulary)}
    assert {"君子", "小人"} <= pieces  # The noble and the small man: words of two characters.
    seen = "".join(record["text"].decode() for record in records(folder / "texts", TRAIN))
    assert sum(character in pieces for character in set(seen)) > 150
    for record in records(folder / "texts", TRAIN):
        text = record["text"].decode()
        encoded = tokenizer.encode(text)
        assert Special.UNKNOWN not in encoded and len(encoded) < 1.2 * len(text)
        # SentencePiece's nmt_nfkc makes ASCII of full-width punctuation.
        plain = text.translate(str.maketrans("：，？！；", ":,?!;"))
        assert tokenizer.decode(encoded) == plain


def test_rows_hold_every_piece_once(prepared):
    folder, tokenizer = prepared
    for split in (TRAIN, VALIDATION):
        rows = np.concatenate([row["tokens"] for row in records(folder / "rows", split)])
        kept = [int(piece) for piece in rows if piece >= len(Special)]
        texts = [record["text"].decode() for record in records(folder / "texts", split)]
        assert kept == [piece for text in texts for piece in tokenizer.encode(text)]


def test_another_tokenizer_is_refused(prepared, tmp_path):
    folder, tokenizer = prepared
    meta = open_set(str(folder / "rows")).meta
    assert meta["text_tokenizer"] == tokenizer.fingerprint
    train_text_tokenizer(tmp_path / "other", [str(folder / "texts")], 0, 10**6, coverage=0.98)
    other = TextTokenizer(tmp_path / "other")
    stream = TextStreamConfig(sources=(str(folder / "rows"),), text_length=32)
    assert len(open_sources("text", stream, tokenizer.fingerprint)) == 1
    with pytest.raises(UsageError, match=f"packed with text tokenizer {tokenizer.fingerprint}"):
        open_sources("text", stream, other.fingerprint)


def test_sentences_end_where_the_script_says():
    assert [s for s in SENTENCE_END.split("一。二！三 四. 五") if s] == [
        "一。",
        "二！",
        "三 四.",
        "五",
    ]
    assert SENTENCE_END.split("One. Two!  Three") == ["One.", "Two!", "Three"]
