"""docs/benchmarks: every entry is valid, its table is made from them, and faults are named."""

import copy
import json

import pytest

from tests.tiny import TOP
from tools import benchmark_table
from tools.benchmark_entries import FIELDS, problems, read, read_all
from tools.marked_text import replaced
from vlbeit_jax.errors import UsageError

FOLDER = TOP / "docs" / "benchmarks"
ENTRY = json.loads((FOLDER / "h200-base-64.json").read_text())
MEASURED = json.loads((FOLDER / "h200-base-1024.json").read_text())


def test_the_committed_table_is_made_from_the_committed_entries():
    entries = read_all(FOLDER)
    assert len(entries) == len(list(FOLDER.glob("*.json"))) >= 8
    page = (FOLDER / "README.md").read_text()
    assert page == replaced(page, benchmark_table.NAME, benchmark_table.markdown(entries))
    # A changed figure would show.
    entries["h200-base-1024.json"]["samples_per_second"] = 2786
    assert page != replaced(page, benchmark_table.NAME, benchmark_table.markdown(entries))


def test_the_page_describes_every_field():
    page = (FOLDER / "README.md").read_text()
    assert all(f"`{name}`" in page for name in FIELDS)


def test_a_row_says_what_was_measured_and_leaves_the_rest_empty():
    *_, row = benchmark_table.markdown({"h200-base-64.json": ENTRY})
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == ["NVIDIA H200", "pretrain_base", "64 of each", "83.7 (83.5 to 83.9)"]
    assert cells[4:9] == ["2,295", "252.4", "25.5%", "", ""]
    assert benchmark_table.in_a_step({"image": 8, "pair": 16}) == "8 image, 16 pair"


def changed(path, value):
    entry = copy.deepcopy(ENTRY)
    *sections, name = path.split(".")
    inner = entry
    for section in sections:
        inner = inner[section]
    inner[name] = value
    return entry


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("format", 2, "format is 2; it must be 1"),
        ("date", "2126-01-01", 'date is "2126-01-01"; it must be a day that is past'),
        ("date", "yesterday", "it must be a day that is past"),
        ("platform", "npu", 'platform is "npu"; it must be one of cpu, gpu, tpu'),
        ("command", "train.sh", 'command is "train.sh"; it must be the command, python -m'),
        ("devices", True, "devices is true; it must be an integer above 0"),
        ("versions", {"python": "3.12"}, "an object with python, jax and vlbeit_jax"),
        ("batch_sizes", {}, "batch_sizes is {}"),
        ("batch_sizes.image", 0, "from streams to integers above 0"),
        ("samples_per_second", None, "samples_per_second is null; it must be a number above 0"),
        ("mfu", 31.0, "mfu is 31.0; it must be between 0 and 1"),
        ("step_seconds.quartiles", [0.09, 0.0837, 0.08], "in this order"),
        ("step_seconds.quartiles", [0.08, 0.09], "in this order"),
        ("step_seconds.median", 0.1, "samples_per_second=2295 times the median step, 0.1 s, is"),
        ("samples_per_second", 2400, "is not the 192 samples of batch_sizes"),
        ("model_flops", 1e13, "is not model_flops=1e+13 times 11.9531 steps a second"),
        ("mfu", 0.31, "mfu=0.31 is not model_flops_per_second over peak_flops_per_second"),
        ("peak_flops_per_second", None, "mfu=0.255 is not"),
        ("peak_memory_bytes", 200 * 2**30, "above the 140.4 GiB that the card has"),
        ("speed", 3, "speed: there is no such field"),
    ],
)
def test_a_fault_is_named_with_the_value_and_what_it_must_be(path, value, said):
    assert not problems(ENTRY)
    wrong = changed(path, value)
    if path == "step_seconds.median":
        wrong["step_seconds"].pop("quartiles")
    assert any(said in problem for problem in problems(wrong)), problems(wrong)


def test_what_was_not_measured_is_null_and_not_left_out():
    assert MEASURED["step_seconds"] is None and not problems(MEASURED)
    without = {name: value for name, value in MEASURED.items() if name != "step_seconds"}
    assert problems(without) == ["step_seconds is missing"]


def test_a_file_that_is_no_entry_is_a_usage_error(tmp_path):
    file = tmp_path / "mine.json"
    with pytest.raises(UsageError, match=r"mine\.json: No such file"):
        read(file)
    for text, said in (
        ("{", "mine.json is not JSON"),
        ("[]", "it must be a JSON object"),
        (json.dumps({**ENTRY, "date": None, "mfu": 2}), r"date is null(.|\n)*mfu is 2"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=said):
            read(file)


def test_the_command_checks_the_entries_that_it_is_given(tmp_path, capsys):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(ENTRY))
    benchmark_table.main([str(file)])
    assert "| NVIDIA H200 | pretrain_base | 64 of each |" in capsys.readouterr().out


def test_a_page_without_the_part_is_a_usage_error():
    text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n"
    assert replaced(text, "x", ["new"]) == "a\n<!-- begin x -->\n\nnew\n\n<!-- end x -->\nb\n"
    for broken in (text.replace("begin x", "begin y"), text.replace("end x", "end y")):
        with pytest.raises(UsageError, match="no part x"):
            replaced(broken, "x", ["new"])
