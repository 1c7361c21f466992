"""What a page says of a run: times, devices, data, settings, readable pieces."""

import importlib.util
import json
import pathlib

import pytest

from tests import tiny
from vlbeit_jax.config.parse import to_dict
from vlbeit_jax.data.pieces import readable
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.report.configuration import repeat_file
from vlbeit_jax.report.data import Use, data_section
from vlbeit_jax.report.facts import as_duration, devices_of, seconds, times
from vlbeit_jax.report.markup import Section, element, table
from vlbeit_jax.runtime.devices import devices, in_words
from vlbeit_jax.tasks import Config, parse
from vlbeit_jax.tasks.differences import differences
from vlbeit_jax.types import Special

CONFIGS = sorted((tiny.TOP / "configs").glob("*.py"))


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_file_beside_the_page_repeats_every_setting(path, tmp_path):
    given = parse(load(path), to_train=False)
    written = tmp_path / "repeat.py"
    written.write_text(repeat_file(given))
    assert load(written).to_dict() == to_dict(given)
    told = {each.path: each for each in differences(given)}
    assert all(each.value != each.default and each.meaning for each in told.values())
    assert len(written.read_text()) < len(json.dumps(to_dict(given), indent=1))  # Only these.


def test_the_defaults_do_not_differ():
    assert not differences(Config())


def test_the_time_of_a_run_that_was_resumed_counts_both_parts():
    lines = [{"seconds": each} for each in (10.0, 60.0, 5.0, 7.5)]
    assert seconds(lines) == 67.5 and seconds([]) == 0
    assert as_duration(67.5) == "68 seconds" and as_duration(2000) == "33 minutes"
    assert as_duration(9000) == "2 h 30 min"


def test_the_date_is_that_of_the_log(tmp_path):
    assert times(tmp_path) is None
    log = "2026-11-27 01:53:31 begins\n  more\n2026-11-28 02:00:00 step 1\n"
    (tmp_path / "log.txt").write_text(log)
    assert times(tmp_path) == ("2026-11-27 01:53", "2026-11-28 02:00")


def test_devices_are_said_as_they_were_recorded():
    assert devices_of({}) == "not recorded"
    found = json.loads(json.dumps(devices()))
    assert devices_of({"devices": found}) == in_words(devices())
    many = {"kind": "TPU v4", "count": 8, "hosts": 2, "cores": 96}
    assert devices_of({"devices": many}) == "8 x TPU v4 on 2 hosts"


def test_data_that_are_gone_or_changed_are_said(world):
    uses = [Use(str(world.pairs), "training: pairs"), Use("nowhere", "training: texts")]
    known = {"must_match": {"task.pair.sources": ["0" * 12]}}
    told = data_section([*uses, Use(str(world.pairs), "figures of this page")], known).markup()
    assert "cannot be opened now" in told and "does not exist" in told
    assert "prepared anew since" in told and told.count(str(world.pairs)) == 1
    assert "48 train" in told and "16 validation" in told
    same = {"must_match": {"task.pair.sources": [json.loads(META(world.pairs))["fingerprint"]]}}
    assert "prepared anew since" not in data_section(uses, same).markup()


def META(folder: pathlib.Path) -> str:
    return (folder / "vlbeit_meta.json").read_text()


def test_pieces_are_readable(world):
    tokenizer = TextTokenizer(world.text_tokenizer)
    by_name = {tokenizer.piece(index): index for index in range(tokenizer.vocabulary)}
    assert readable(tokenizer, by_name["<0x28>"]).alone == "("
    assert readable(tokenizer, by_name["<0x0A>"]).alone == "↵"
    assert readable(tokenizer, by_name["<0xC3>"]).alone == "‹byte C3›"
    assert readable(tokenizer, Special.SEP).alone == "¶"
    pieces = [readable(tokenizer, index) for index in tokenizer.encode("a red disc (number 3)")]
    assert "".join(piece.in_text for piece in pieces).strip() == "a red disc (number 3)"
    inside = [piece for piece in pieces if not piece.starts_word and piece.text.isalnum()]
    assert inside and all(piece.alone == f"-{piece.text}" for piece in inside)


def test_markup_is_escaped_once():
    found = element("p", "a < b & ", element("b", '"c"'), None, [1, "d"], class_="x", title='"')
    expected = '<p class="x" title="&quot;">a &lt; b &amp; <b>&quot;c&quot;</b>1d</p>'
    assert found == expected
    assert Section("Hidden words: of <texts>", ["x"]).anchor == "hidden-words-of-texts"
    rows = table("all", ("name", "value"), [["a", 1]])
    assert 'data-head="value"' in rows and rows.count('scope="col"') == 2
    with pytest.raises(ValueError):
        table("all", ("name", "value"), [["a", 1, 2]])
