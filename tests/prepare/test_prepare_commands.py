"""The commands that prepare: what they print, and their usage errors.

A usage error ends with code 2, one message and no traceback.
"""

import json
import re

import pytest

from tests.make_data import pair_members, write_tar
from tests.processes import command


def run(module, *arguments):
    return command(f"vlbeit_jax.{module}", *arguments)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], ["--kind", "--input", "--out"]),
        (["--kind=text", "--format=text", "--input=IN", "--out=OUT"], ["--kind=text", "texts"]),
        (
            ["--kind=texts", "--format=text", "--input=IN/none", "--out=OUT"],
            ["IN/none", "no such file"],
        ),
        (
            ["--kind=texts", "--format=text", "--input=IN", "--out=OUT", "--shard=2"],
            ["--shard: no such flag; did you mean --shards?"],
        ),
        (
            ["--kind=texts", "--format=text", "--input=IN", "--out=OUT", "--validation_share=1.5"],
            ["validation_share", "[0, 1]"],
        ),
        (
            ["--kind=texts", "--format=text", "--input=IN", "--out=OUT", "--shards=many"],
            ["shards", "many"],
        ),
        (["--kind=texts", "--format=text", "IN", "--out=OUT"], ["--input"]),
        (
            ["--kind=texts", "--format=text", "--input=IN", "--out=IN/below"],
            ["cannot write", "IN/below"],
        ),
        (["--kind=pairs", "--format=webdataset", "--input=IN", "--out=OUT"], ["IN", "tar"]),
        (
            ["--kind=pairs", "--format=text", "--input=IN", "--out=OUT"],
            ["--format=text can be read as --kind=texts", "folder"],
        ),
        (["--kind=tokens", "--input=IN", "--out=OUT"], ["--text_tokenizer"]),
        (
            ["--kind=texts", "--format=text", "--input=IN", "--out=OUT", "--text_tokenizer=IN"],
            ["--text_tokenizer is for tokens and pairs, but --kind=texts"],
        ),
    ],
    ids=lambda value: value[-1] if value else "nothing",
)
def test_usage_errors_say_what_is_wrong(tmp_path, arguments, said):
    places = {"IN": str(tmp_path / "in"), "OUT": str(tmp_path / "out")}
    (tmp_path / "in").write_text("a document\n")

    def placed(text):
        for name, place in places.items():
            text = text.replace(f"={name}", f"={place}")
        return text

    ended = run("prepare", *map(placed, arguments))
    assert ended.returncode == 2 and ended.stdout == ""
    message = re.sub(r"^reading.* \.\.\.\n", "", ended.stderr)  # Some begin to read before.
    assert message.startswith("error: ") and "Traceback" not in message
    assert all(word.replace("IN", places["IN"]) in ended.stderr for word in said), ended.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "in"]


def test_preparing_and_training_by_command(tmp_path):
    tar = write_tar(tmp_path / "a.tar", pair_members(80))
    ended = run(
        "prepare",
        "--kind=pairs",
        "--format=webdataset",
        f"--input={tar}",
        f"--out={tmp_path}/pairs",
        "--licence=CC0",
    )
    meta = json.loads(ended.stdout)
    assert ended.returncode == 0 and sum(meta["counts"].values()) == 80 and meta["licence"] == "CC0"
    assert meta == json.loads((tmp_path / "pairs" / "vlbeit_meta.json").read_text())
    # Three records as they were read, width before height; then the counts.
    assert re.findall(r"^  a/000(\d\d) 18 x 16 pixels: '(\w+) ", ended.stderr, re.MULTILINE)[2:]
    assert re.search(
        r"written to \S+/pairs: 80 pairs \(train \d+, validation \d+\); 0 not used$",
        ended.stderr.strip(),
    )
    assert "warning" not in ended.stderr
    ended = run(
        "text_tokenizer",
        f"--data={tmp_path}/pairs",
        "--vocabulary=300",
        f"--out={tmp_path}/tokenizer",
    )
    assert ended.returncode == 0 and json.loads(ended.stdout)["vocabulary"] == 300
    ended = run(
        "text_tokenizer",
        f"--data={tmp_path}/pairs",
        "--vocabulary=300",
        f"--out={tmp_path}/tokenizer",
    )
    assert (
        ended.returncode == 2
        and "exists already" in ended.stderr
        and "Traceback" not in ended.stderr
    )
