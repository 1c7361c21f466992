"""Any figures can be written and read back; the text line shows them."""

import json
import math

from tests import tiny
from vlbeit_jax.runtime.run_folder import read_metrics
from vlbeit_jax.runtime.writer import Writer, as_text

MASKED = {"mim/accuracy": 0.25, "mim/chance": 0.03, "mim/unigram": 0.1, "mim/loss": 2.0}


def write(folder, *lines, start=0):
    writer = Writer(folder, start, 30)
    for step, figures in lines:
        writer.write(step, "train", figures)
    writer.close()


def test_a_term_shows_loss_and_accuracy_with_its_baselines():
    text = as_text({**MASKED, "mim/count": 7, "grad_norm": 1.5})
    assert text == "mim loss 2.000 acc 25.0% (unigram 10.0%, chance 3.00%) | grad_norm 1.5"


def test_any_figures_can_be_shown():
    assert as_text({"vqa/score": 0.5}) == "vqa score 0.5"
    assert as_text({"top1/accuracy": 0.7, "top1/loss": 1.0}) == "top1 loss 1.000 acc 70.0%"
    assert as_text({"ade/head/miou": 0.4}) == "ade head/miou 0.4"


def test_figures_come_back_as_they_were_written(tmp_path):
    write(tmp_path, (1, {"vqa/score": 0.5, "grad_norm": math.inf}), (2, MASKED))
    first, second = read_metrics(tmp_path)
    assert (first["step"], first["split"], first["vqa/score"]) == (1, "train", 0.5)
    assert math.isnan(first["grad_norm"])
    assert second.items() >= MASKED.items()
    # JSON has neither NaN nor Infinity, and other readers refuse them.
    text = (tmp_path / "metrics.jsonl").read_text()
    refuse = lambda word: (_ for _ in ()).throw(ValueError(word))  # noqa: E731
    assert all(json.loads(line, parse_constant=refuse) for line in text.splitlines())


def test_a_resumed_run_drops_lines_of_steps_that_it_takes_again(tmp_path):
    write(tmp_path, (5, MASKED), (10, MASKED), (15, MASKED))
    with (tmp_path / "metrics.jsonl").open("a") as out:
        out.write('{"step": 20, "spl')  # The process was killed here.
    assert [line["step"] for line in read_metrics(tmp_path)] == [5, 10, 15]
    write(tmp_path, (15, MASKED), start=10)
    assert [line["step"] for line in tiny.metrics_of(tmp_path)] == [5, 10, 15]


def test_a_writer_that_writes_no_figures_opens_nothing(tmp_path):
    write(tmp_path, (5, MASKED))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    writer = Writer(tmp_path, 30, 30)
    writer.say("already finished")
    writer.close()
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    log = tmp_path / "log.txt"
    assert before.pop(log) != (text := after.pop(log)) and text.endswith(b"already finished\n")
    assert after == before


def test_only_an_enabled_writer_writes(tmp_path):
    writer = Writer(tmp_path, 0, 30, enabled=False)
    writer.write(5, "train", MASKED)
    writer.say("hello")
    writer.close()
    assert not list(tmp_path.iterdir())
