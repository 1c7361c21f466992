"""Agreement between the processes of a run.

Messages go through the key-value store of JAX's coordinator, which works before any device is
initialised. Process 0, the primary, does what only one process may do, such as writing files. Every
process learns whether that succeeded.
"""

import json
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import jax

from vlbeit_jax.errors import Exit, Reported, UsageError
from vlbeit_jax.runtime.jax_internals import key_value_store, process_and_count
from vlbeit_jax.storage import unmasked

ABSENT = "nothing"  # Stands in messages for a fact that one process does not have.
SHOWN = 3  # Hosts that a message names for one error; it counts the others.
Result = TypeVar("Result")


class AgreedError(UsageError):
    """An error that every process raises, so that none has to be told of it.

    Attributes:
      code: exit code, 2 for a usage error.
    """

    def __init__(self, message: str, code: int = Exit.USAGE):
        """Args: ``message`` and ``code`` of all processes."""
        super().__init__(message)
        self.code = Exit(code)


def is_primary() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


class Hosts:
    """The processes of a run. Every process must make the same calls in the same order."""

    def __init__(self, timeout: int, name: str = "run"):
        """Connects to the store; initialises no device.

        Args:
          timeout: how long each call waits for the other processes, seconds.
          name: of these calls; two objects with one name would mix up their messages.
        """
        self._store, self._timeout, self._name = key_value_store(), timeout, name
        self._process, self._count = process_and_count()
        self._calls = 0

    def assert_equal(self, facts: Mapping[str, Any]) -> None:
        """Compares this process's facts with those of process 0.

        Raises:
          AgreedError: some facts differ (the message names host, fact and both values), or a
            process did not answer. Every process raises the same error.
        """
        if self._count == 1:
            return
        answers = self._exchange({"facts": dict(facts)})
        primary = answers[0]
        different = []
        for process, answer in answers.items():
            for name in sorted({*primary["facts"], *answer["facts"]}):
                value = answer["facts"].get(name, ABSENT)
                expected = primary["facts"].get(name, ABSENT)
                if value != expected:
                    different.append(
                        f"{name}: {value!r} on host {answer['host']} (process {process}), "
                        f"{expected!r} on host {primary['host']} (process 0)"
                    )
        if different:
            raise AgreedError("the hosts do not run the same thing:\n  " + "\n  ".join(different))

    def all_or_none(self, action: Callable[[], Result]) -> Result:
        """Runs ``action`` on every process. If any raises a reported error, all of them do.

        Raises:
          Reported: of a single process, its own. Of several, an ``AgreedError`` with every error
            and the hosts that have it, and the highest of their exit codes.
        """
        result, error, code = None, None, Exit.DONE
        try:
            result = action()
        except Reported as found:
            if self._count == 1:
                raise
            told = unmasked(found)
            error, code = str(told), told.code
        if self._count > 1:
            answers = self._exchange({"error": error, "code": code})
            hosts: dict[str, list[str]] = {}
            for process, answer in answers.items():
                if answer["error"]:
                    name = f"host {answer['host']} (process {process})"
                    hosts.setdefault(answer["error"], []).append(name)
            if hosts:
                told = [_told(error, names, self._count) for error, names in hosts.items()]
                worst = max(answer["code"] for answer in answers.values())
                raise AgreedError("\n".join(told), worst)
        return cast(Result, result)

    def gathered(self, own: Any) -> list[Any]:
        """Returns what every process passes to this call, JSON values, by process."""
        if self._count == 1:
            return [own]
        return [answer["own"] for answer in self._exchange({"own": own}).values()]

    def on_primary(self, action: Callable[[], None]) -> None:
        """Runs ``action`` on process 0 while the others wait. All raise its reported error."""
        self.all_or_none(action if self._process == 0 else lambda: None)

    def _exchange(self, own: Mapping[str, Any]) -> dict[int, Any]:
        """Returns what every process passed to this call, and its host, by process."""
        self._calls += 1
        prefix = f"vlbeit_jax/{self._name}/{self._calls}"
        own = {"host": socket.gethostname(), **own}
        self._store.key_value_set(f"{prefix}/{self._process}", json.dumps(own))
        answers, silent = {}, []
        for process in range(self._count):
            # The first silent process has used up the timeout, and the others had as much time.
            milliseconds = 1000 if silent else 1000 * self._timeout
            try:
                answer = self._store.blocking_key_value_get(f"{prefix}/{process}", milliseconds)
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
                silent.append(process)
            else:
                answers[process] = json.loads(answer)
        if silent:
            raise AgreedError(
                f"process(es) {', '.join(map(str, silent))} of {self._count} did not answer within "
                f"{self._timeout} s; look at their output, or raise cluster.initialization_timeout",
                Exit.PEER_LOST,
            )
        return answers


def _told(error: str, hosts: Sequence[str], count: int) -> str:
    """Returns an error with the hosts that have it; without them if all ``count`` processes do."""
    if len(hosts) == count:
        return error
    more = f" and {len(hosts) - SHOWN} more" if len(hosts) > SHOWN else ""
    return f"{', '.join(hosts[:SHOWN])}{more}: {error}"
