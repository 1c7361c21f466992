"""launch/tpu_vm.sh: chips are requested, lost and requested again; the run starts on all hosts."""

import json
import shutil
import sys

import pytest

from tests.launch.stand_ins import LAUNCH, TPU, WORDS, executable, wait_for

NOT_FOUND = {
    "error": "ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: "
    "Resource was not found"
}


def test_chips_are_requested_and_waited_for(cloud):
    states = [NOT_FOUND, "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    done = cloud.run("tpu_vm.sh", "create", settings=TPU, describe=states)
    assert done.returncode == 0, done.stderr
    assert cloud.verbs() == ["describe", "create", "describe", "describe", "describe"]
    created = {"--spot", "--accelerator-type=v5litepod-256", "--project=p", "--zone=z"}
    assert created <= set(cloud.calls[1][1])
    done = cloud.run("tpu_vm.sh", "create", settings=TPU | {"SPOT": "false"}, describe=states)
    assert done.returncode == 0 and "--spot" not in cloud.calls[1][1]


def test_chips_that_are_there_are_not_requested_again(cloud):
    done = cloud.run("tpu_vm.sh", "create", settings=TPU, describe=["ACTIVE"])
    assert done.returncode == 0 and cloud.verbs() == ["describe"]


def test_the_wait_for_chips_ends(cloud):
    settings = TPU | {"WAIT_MINUTES": "0"}
    done = cloud.run("tpu_vm.sh", "create", settings=settings, describe=["PROVISIONING"])
    assert done.returncode == 2 and "run-1 is PROVISIONING after 0 minutes" in done.stderr


@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_refused_request_for_chips_is_shown_at_once(cloud, verb):
    refused = [{"error": "ERROR: PERMISSION_DENIED: no quota"}]
    done = cloud.run("tpu_vm.sh", verb, settings=TPU, describe=[NOT_FOUND], create=refused)
    assert done.returncode == 1 and "PERMISSION_DENIED: no quota" in done.stderr, done.stderr
    assert [word for word in cloud.verbs() if word != "describe"] == ["create"]


def test_a_request_that_fails_later_ends_the_wait(cloud):
    states = [NOT_FOUND, "ACCEPTED", "FAILED"]
    done = cloud.run("tpu_vm.sh", "create", settings=TPU, describe=states)
    assert done.returncode == 2 and "the request for run-1 is FAILED" in done.stderr


BROKEN = {"error": "ERROR: UNAVAILABLE: connection reset"}


def test_an_error_of_gcloud_is_not_taken_for_missing_chips(cloud):
    """Neither are chips requested twice nor is a run given up, because a question failed."""
    states = [NOT_FOUND, BROKEN, BROKEN, "ACTIVE"]
    done = cloud.run("tpu_vm.sh", "create", settings=TPU, describe=states)
    assert done.returncode == 0 and cloud.verbs().count("create") == 1, done.stderr
    done = cloud.run(
        "tpu_vm.sh",
        "run",
        settings=TPU,
        describe=["ACTIVE", "ACTIVE", BROKEN, "ACTIVE"],
        **{"worker.sh status": ["running 7", "ended 0"]},
    )
    assert done.returncode == 0, done.stderr
    assert "delete" not in cloud.verbs() and "restart" not in done.stderr


def test_a_lasting_error_of_gcloud_ends_the_wait(cloud):
    done = cloud.run("tpu_vm.sh", "create", settings=TPU, describe=[BROKEN])
    assert done.returncode == 2 and "UNAVAILABLE" in done.stderr
    assert cloud.verbs() == ["describe"] * 10
    # So does a request that has vanished.
    done = cloud.run("tpu_vm.sh", "create", settings=TPU, describe=[NOT_FOUND])
    assert done.returncode == 2 and "run-1 is NONE after 10 questions" in done.stderr
    assert cloud.verbs().count("create") == 1


def test_arguments_arrive_as_they_are(cloud):
    """Over ssh, through two shells, to a real worker.sh; the interpreter records its arguments."""
    shutil.copytree(LAUNCH, cloud.remote / "vlbeit_jax" / "launch")
    got = cloud.remote / "got"
    python = executable(
        cloud.remote / "note.py",
        f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open({str(got)!r}, 'w'))\n",
    )
    settings = TPU | {"PYTHON": str(python)}
    done = cloud.run("tpu_vm.sh", "start", *WORDS, settings=settings, run_here=True)
    assert done.returncode == 0, done.stderr
    home = cloud.folder.parent
    wait_for((home / "vlbeit_jax_runs" / "run-1" / "exit_code").is_file, 10)
    assert json.loads(got.read_text()) == ["-m", "vlbeit_jax.main", *WORDS]
    assert not list(home.rglob("hacked")) and "--worker=all" in cloud.calls[0][1]


@pytest.mark.parametrize(("lost", "code", "calls"), [(2, 0, 3), (99, 255, 4)])
def test_a_lost_connection_is_retried_a_few_times(cloud, lost, code, calls):
    answers = [255] * lost + ["stopped"]
    done = cloud.run("tpu_vm.sh", "stop", settings=TPU | {"RETRIES": "3"}, ssh=answers)
    assert (done.returncode, len(cloud.calls)) == (code, calls)


def test_a_command_that_fails_itself_is_not_retried(cloud):
    done = cloud.run("tpu_vm.sh", "stop", settings=TPU, ssh=[7])
    assert (done.returncode, len(cloud.calls)) == (7, 1)


def starts(cloud):
    """Calls that start the run on the workers."""
    return [given for _, given, _ in cloud.calls if "worker.sh start" in " ".join(given)]


def test_chips_that_are_taken_away_are_requested_again(cloud):
    """Create, install and start; once they are taken away, the same again with equal arguments."""
    done = cloud.run(
        "tpu_vm.sh",
        "run",
        *WORDS,
        settings=TPU,
        describe=[
            NOT_FOUND,
            "ACTIVE",
            "ACTIVE",
            "SUSPENDED",
            "SUSPENDED",
            "DELETING",
            NOT_FOUND,
            "WAITING_FOR_RESOURCES",
            "ACTIVE",
        ],
        **{"worker.sh status": ["running 7", "ended 0"]},
    )
    assert done.returncode == 0, done.stderr
    verbs = cloud.verbs()
    assert verbs.count("create") == 2 and verbs.count("delete") == 1
    assert verbs.index("delete") > verbs.index("ssh")
    first, second = starts(cloud)
    assert first == second
    assert "restart 1 of 10" in done.stderr and "finished" in done.stdout


@pytest.mark.parametrize(
    ("ending", "code", "count"), [("ended 2", 2, 1), ("ended 1", 2, 3), ("lost", 2, 3)]
)
def test_restarts_are_bounded_and_a_usage_error_is_not_restarted(cloud, ending, code, count):
    done = cloud.run(
        "tpu_vm.sh",
        "run",
        "--config=x",
        settings=TPU | {"MAX_RESTARTS": "2"},
        describe=["ACTIVE"],
        **{"worker.sh status": [ending]},
    )
    assert done.returncode == code, done.stderr
    assert len(starts(cloud)) == count and "delete" not in cloud.verbs()


def test_restarts_are_counted_from_the_last_saved_step(cloud):
    """Chips may be taken away many times, as long as the run comes forward in between."""
    done = cloud.run(
        "tpu_vm.sh",
        "run",
        "--config=x",
        "--workdir=y",
        settings=TPU | {"MAX_RESTARTS": "2"},
        describe=["ACTIVE"],
        **{"worker.sh saved": ["0", "0", "8", "8", {"error": "lost"}, "9"]},
        **{"worker.sh status": ["lost"]},
    )
    assert done.returncode == 2 and "after 2 restarts without a new step" in done.stderr
    assert len(starts(cloud)) == 2 + 3


@pytest.mark.parametrize(
    "failing", ["scp", "--command=bash -c", "install.sh tpu", "worker.sh start"]
)
def test_the_first_step_that_fails_ends_the_command(cloud, failing):
    arguments = ["run", "--config=x"]
    done = cloud.run("tpu_vm.sh", *arguments, settings=TPU, describe=["ACTIVE"], **{failing: [7]})
    assert done.returncode == 7, done.stderr
    *before, last = [" ".join(given) for _, given, _ in cloud.calls if "describe" not in given]
    assert failing in last and not any(failing in step for step in before)


def test_a_step_that_fails_because_chips_were_taken_away_is_repeated(cloud):
    done = cloud.run(
        "tpu_vm.sh",
        "run",
        settings=TPU,
        describe=["ACTIVE", "SUSPENDED", "SUSPENDED", NOT_FOUND, "ACTIVE"],
        **{"install.sh tpu": [1, "done"], "worker.sh status": ["ended 0"]},
    )
    assert done.returncode == 0, done.stderr
    assert cloud.verbs().count("create") == 1 and "restart 1 of 10" in done.stderr


def test_chips_are_deleted_by_their_name(cloud):
    done = cloud.run("tpu_vm.sh", "delete", "run-1", settings=TPU)
    assert done.returncode == 0 and cloud.verbs() == ["delete"] and "run-1" in cloud.calls[0][1]
