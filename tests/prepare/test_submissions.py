"""Files for evaluation servers: every question is in them once, with its id."""

import io
import json

import pytest

from tests.convert.finetuned_runs import sets_in, task_of, write_run
from tests.prepare import benchmarks
from tests.processes import command
from vlbeit_jax.errors import Exit
from vlbeit_jax.prepare.submissions import SUBMISSIONS, write_list


@pytest.fixture(scope="module")
def run(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("submissions")
    sets = sets_in(folder / "sets")
    model = {"vocabulary": tokenizer.vocabulary}
    return write_run(folder / "run", task_of("vqa", sets["vqa"], tokenizer.folder, model=model))


def predict(run, source, out, *arguments):
    return command(
        "vlbeit_jax.predict",
        f"--from={run}",
        "--format=vqav2",
        f"--input={source}",
        f"--out={out}",
        *arguments,
    )


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_list_is_json_whatever_its_length(count):
    lines = [{"id": str(each), "answer": "sí"} for each in range(count)]
    out = io.StringIO()
    assert write_list(lines, SUBMISSIONS["vqav2"].entry, out) == []
    wanted = [{"question_id": each, "answer": "sí"} for each in range(count)]
    assert json.loads(out.getvalue()) == wanted


def test_every_question_has_an_answer_of_the_list(run, tmp_path):
    source = benchmarks.vqav2(tmp_path / "vqa")
    ended = predict(run, source, tmp_path / "submission.json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "submission.json").read_text())
    asked = json.loads((source / "v2_OpenEnded_mscoco_test2015_questions.json").read_text())
    assert [each["question_id"] for each in found] == [
        each["question_id"] for each in asked["questions"]
    ]
    known = json.loads((run / "answers.json").read_text())["answers"]
    assert all(each.keys() == {"question_id", "answer"} for each in found)
    assert all(each["answer"] in known for each in found)


def test_a_question_that_cannot_be_answered_is_in_the_file_and_named(run, tmp_path):
    source = benchmarks.vqav2(tmp_path / "vqa")
    (source / "val2014" / "COCO_val2014_000000000201.jpg").write_bytes(b"x")
    ended = predict(run, source, tmp_path / "answers.json", "--split=validation")
    assert (
        ended.returncode == Exit.BAD_DATA
        and "question 201000: its image is not a file" in ended.stderr
    )
    assert "2 records have no prediction" in ended.stderr
    found = {
        each["question_id"]: each["answer"]
        for each in json.loads((tmp_path / "answers.json").read_text())
    }
    assert len(found) == 6 and found[201000] == found[201001] == "" != found[200000]


def test_what_does_not_fit_is_a_usage_error(run, tmp_path):
    source = benchmarks.vqav2(tmp_path / "vqa")
    ended = predict(run, source, tmp_path / "a.json", "--split=dev")
    assert ended.returncode == 2 and "--split=dev" in ended.stderr and "test-dev" in ended.stderr
    (source / "v2_OpenEnded_mscoco_test2015_questions.json").unlink()
    ended = predict(run, source, tmp_path / "a.json")
    assert (
        ended.returncode == 2 and "no v2_OpenEnded_mscoco_test2015_questions.json" in ended.stderr
    )
    assert not (tmp_path / "a.json").exists() and len(list(tmp_path.iterdir())) == 1
