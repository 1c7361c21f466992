"""Any figures can be written and read back; the log shows the most important ones."""

import json
import math

from tests import tiny
from vlbeit_jax.runtime.metrics_file import last_figures, read_metrics
from vlbeit_jax.runtime.writer import Writer

MASKED = {"mim/accuracy": 0.25, "mim/chance": 0.03, "mim/unigram": 0.1, "mim/loss": 2.0}


def write(folder, *lines, start=0):
    writer = Writer(folder, start, 30)
    for step, figures in lines:
        writer.write(step, "train", figures)
    writer.close()


def logged(folder):
    """The lines of the text log, without their times."""
    return [text[20:] for text in (folder / "log.txt").read_text().splitlines()]


def test_the_log_has_a_line_and_the_file_has_every_figure(tmp_path):
    write(tmp_path, (1, {**MASKED, "grad_norm": 1.5}), (30, MASKED))
    first, last = logged(tmp_path)
    assert first == "step  1/30 train:      mim loss 2.000 accuracy 25.0% > unigram 10.0%"
    assert last.startswith("step 30/30") and last.endswith("| took 0s")
    assert tiny.metrics_of(tmp_path)[0].items() >= {**MASKED, "grad_norm": 1.5}.items()


def test_the_legend_is_said_once(tmp_path):
    many = {f"{stream}_{name}": value for stream in "abcde" for name, value in MASKED.items()}
    write(tmp_path, (1, many), (2, many))
    said = logged(tmp_path)
    assert len(said) == 3 and said[0].startswith("each term below: its loss")


def test_the_time_left_counts_steps_and_not_their_compilation(tmp_path, monkeypatch):
    now = [0.0]
    compiled = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    writer = Writer(tmp_path, 0, 30, compile_seconds=lambda: compiled[0])
    for step, takes, compiles in ((1, 100.0, 90.0), (2, 10.0, 0.0), (3, 50.0, 40.0)):
        now[0] += takes
        compiled[0] += compiles
        writer.progress("")
        writer.write(step, "train", MASKED)
    writer.close()
    # After the first step, 10 seconds a step: 28 and 27 steps are left.
    first, second, third = logged(tmp_path)
    assert "left" not in first and second.endswith(" 4m40s left") and third.endswith("4m30s left")


def test_compilation_is_said_before_and_after_it(tmp_path):
    writer = Writer(tmp_path, 0, 30)
    with writer.compiling(("image", "pair")):
        assert logged(tmp_path) == ["compiling the step of image, pair ..."]
    writer.close()
    assert logged(tmp_path)[1] == "compiling ... 0s"


def test_figures_come_back_as_they_were_written(tmp_path):
    write(tmp_path, (1, {"vqa/score": 0.5, "grad_norm": math.inf}), (2, MASKED))
    first, second = read_metrics(tmp_path)
    assert (first["step"], first["split"], first["vqa/score"]) == (1, "train", 0.5)
    assert math.isinf(first["grad_norm"])
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


def test_figures_of_one_step_are_joined_and_those_of_earlier_steps_left_out():
    lines = [
        {"step": 2, "split": "validation", "a/loss": 3.0, "b/loss": 3.0},
        {"step": 4, "split": "validation", "a/loss": 1.0},
        {"step": 4, "split": "train", "a/loss": 9.0},
        {"step": 4, "split": "validation", "probe/ridge": 0.5},
    ]
    found = last_figures(lines, "validation")
    assert found == {"step": 4, "split": "validation", "a/loss": 1.0, "probe/ridge": 0.5}
    assert last_figures(lines, "validation_ema") == {}
