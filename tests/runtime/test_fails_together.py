"""One process fails: what it tells the others, what they do, and when each of them ends.

The store and the end of a process are stand-ins; test_processes.py has real ones.
"""

import json
import sys
import threading

import pytest
from jax.errors import JaxRuntimeError

from vlbeit_jax.errors import Exit, StorageError, UsageError
from vlbeit_jax.runtime import ending, hosts
from vlbeit_jax.runtime import fails_together as module
from vlbeit_jax.runtime.fails_together import fails_together
from vlbeit_jax.runtime.hosts import AgreedError, Hosts

TOLD = "host other (process 1 of 3): the disk is full"


class Store(dict):
    """JAX's key-value store, as far as it is used; and what the process under test did."""

    def __init__(self):
        super().__init__()
        self.codes, self.ended = [], threading.Event()

    def key_value_set(self, key, value):
        if key in self:
            raise JaxRuntimeError(f"ALREADY_EXISTS: {key}")
        self[key] = value

    def key_value_try_get(self, key):
        if key not in self:
            raise JaxRuntimeError(f"NOT_FOUND: {key}")
        return self[key]

    def key_value_dir_get(self, prefix):
        return [each for each in self.items() if each[0].startswith(f"{prefix}/")]

    def blocking_key_value_get(self, key, milliseconds):
        return self.key_value_try_get(key)


class Ended(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def store(monkeypatch):
    """The store of a run of three processes, of which the test is process 2."""
    found = Store()

    def end(code):
        found.codes.append(code)
        found.ended.set()
        raise Ended

    monkeypatch.setattr(module, "key_value_store", lambda: found)
    monkeypatch.setattr(module, "process_and_count", lambda: (2, 3))
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(ending.os, "_exit", end)
    return found


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("memory is full"), Exit.USAGE, "(process 2 of 3): memory is full"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, "(process 2 of 3) was interrupted"),
        (StorageError("disk full"), Exit.STORAGE, "(process 2 of 3): disk full"),
        (JaxRuntimeError("Gloo: closed by peer"), Exit.PEER_LOST, "has ended without a message"),
        (OSError("disk gone"), 1, "its own output has the traceback: OSError: disk gone"),
    ],
    ids=["usage", "interrupt", "disk", "lost", "defect"],
)
def test_the_first_to_fail_tells_the_others_and_ends(store, capfd, error, code, said):
    with pytest.raises(Ended), fails_together():
        raise error
    message, found = json.loads(store[module._MESSAGE])
    assert found == code and said in message and store.codes == [code]
    printed = capfd.readouterr().err
    assert printed.endswith(f"error: {message}\n")
    assert ("Traceback" in printed) == (code == 1)


def test_whoever_fails_because_of_it_reports_the_first_failure(store, capfd):
    """As where a collective operation breaks because another process has ended."""
    with pytest.raises(Ended), fails_together():
        store[module._MESSAGE] = json.dumps([TOLD, 2])
        raise JaxRuntimeError("Gloo: connection closed by peer")
    assert store.codes == [2] and capfd.readouterr().err == f"error: {TOLD}\n"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whoever_waits_is_ended_by_the_thread_that_looks(store, capfd):
    with fails_together():
        assert not store.ended.wait(0.1)  # The control: nothing has failed so far.
        store[module._MESSAGE] = json.dumps([TOLD, 2])
        assert store.ended.wait(10)
    assert store.codes == [2] and f"error: {TOLD}\n" in capfd.readouterr().err


def test_process_0_ends_after_the_others_have_read_why(store, monkeypatch):
    monkeypatch.setattr(module, "process_and_count", lambda: (0, 3))
    late = threading.Timer(0.3, lambda: store.update({f"{module._READ}/{i}": "" for i in (1, 2)}))
    late.start()
    with pytest.raises(Ended), fails_together():
        raise UsageError("memory is full")
    assert len(store.key_value_dir_get(module._READ)) == 3
    # The control: processes that are gone do not keep it for ever.
    store.clear()
    monkeypatch.setattr(module, "LEAVE_SECONDS", 0.05)
    with pytest.raises(Ended), fails_together():
        raise UsageError("memory is full")
    assert len(store.key_value_dir_get(module._READ)) == 1


def test_a_process_ends_even_if_nobody_reads_its_output(store, monkeypatch):
    class Closed:
        def write(self, text):
            raise BrokenPipeError

        flush = write

    monkeypatch.setattr(sys, "stderr", Closed())
    with pytest.raises(Ended), fails_together():
        raise UsageError("memory is full")
    assert store.codes == [Exit.USAGE]


def test_what_all_have_agreed_on_is_told_to_nobody(store, monkeypatch):
    with pytest.raises(AgreedError), fails_together():
        raise AgreedError("the hosts do not run the same thing")
    assert not store
    monkeypatch.setattr(module, "key_value_store", lambda: None)  # A single process.
    with pytest.raises(OSError, match="disk gone"), fails_together():
        raise OSError("disk gone")
    assert not store.codes


def agreed(monkeypatch, errors, own=None):
    """What process 0 raises if each other process has found this error."""
    store = Store()
    for process, error in enumerate(errors, 1):
        answer = {"host": f"h{process}", "error": error, "code": 2 if error else 0}
        store[f"vlbeit_jax/run/1/{process}"] = json.dumps(answer)
    monkeypatch.setattr(hosts, "key_value_store", lambda: store)
    monkeypatch.setattr(hosts, "process_and_count", lambda: (0, len(errors) + 1))

    def act():
        if own:
            raise UsageError(own)
        return "done"

    return Hosts(1).all_or_none(act)


def test_an_error_names_the_hosts_that_have_it(monkeypatch):
    assert agreed(monkeypatch, [None, None]) == "done"
    with pytest.raises(AgreedError, match=r"^host h2 \(process 2\): no data$"):
        agreed(monkeypatch, [None, "no data"])
    with pytest.raises(AgreedError, match=r"^no data$"):  # All have it.
        agreed(monkeypatch, ["no data"] * 4, own="no data")
    several = r"^host h1 \(process 1\), .* host h3 \(process 3\) and 3 more: no data$"
    with pytest.raises(AgreedError, match=several):
        agreed(monkeypatch, ["no data"] * 6)
    with pytest.raises(AgreedError, match=r"^host h1 .*: no data\nhost h2 .*: no tokenizer$"):
        agreed(monkeypatch, ["no data", "no tokenizer"])
