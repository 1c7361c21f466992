"""Who has come? Asked before JAX connects, because JAX ends a process without saying whom it waited for.

Process 0 listens at the coordinator's port, hears each of the others, and answers all of them at once. Then the port is free
for JAX.
"""

import contextlib
import json
import socket
import time
from typing import Any, NamedTuple

from vlbeit_jax.errors import UsageError

LINE = 4096  # Longest message, bytes.
PAUSE = 0.2  # Between two attempts to reach process 0, seconds.


class Place(NamedTuple):
    """Where this process stands.

    Attributes:
      coordinator: address and port of process 0.
      processes: how many there are.
      process: which one this is.
    """

    coordinator: str
    processes: int
    process: int

    @property
    def port(self) -> int:
        """The coordinator's."""
        return int(self.coordinator.rpartition(":")[2])


def roll_call(place: Place, seconds: float) -> None:
    """Returns when all processes are there.

    Raises:
      UsageError: on all that have come alike: some have not, two say that they are the same, or they count differently.
    """
    deadline = time.monotonic() + seconds
    error = _hear(place, deadline) if place.process == 0 else _answer(place, deadline)
    if error:
        raise UsageError(error)


def _hear(place: Place, deadline: float) -> str | None:
    here = {"host": socket.gethostname(), "process": 0, "processes": place.processes}
    present, wrong = {0: here}, []
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(_listen(place.port))
        except OSError as error:
            return f"host {here['host']} (process 0) cannot listen at port {place.port}: {error}; name another one"
        callers = []
        while (
            len(present) < place.processes
            and not wrong
            and (left := deadline - time.monotonic()) > 0
        ):
            server.settimeout(left)
            try:
                caller = stack.enter_context(server.accept()[0])
                caller.settimeout(5)
                said = json.loads(caller.recv(LINE))
                name = f"host {said['host']} (process {said['process']})"
            except (
                OSError,
                ValueError,
                KeyError,
                TypeError,
            ):  # Not one of ours, or the time is up.
                continue
            callers.append(caller)
            if said["processes"] != place.processes:
                wrong.append(
                    f"{name} counts {said['processes']} processes, host {here['host']} (process 0) counts {place.processes}"
                )
            elif said["process"] in present:
                wrong.append(
                    f"{name} and host {present[said['process']]['host']} both say that they are process {said['process']}"
                )
            else:
                present[said["process"]] = said
        error = "; ".join(wrong) or _missing(place, present)
        for caller in callers:
            with contextlib.suppress(OSError):  # It has given up by itself.
                caller.sendall(json.dumps({"error": error}).encode())
    return error


def _missing(place: Place, present: dict[int, Any]) -> str | None:
    absent = [str(process) for process in range(place.processes) if process not in present]
    if not absent:
        return None
    came = ", ".join(f"{process} on {said['host']}" for process, said in sorted(present.items()))
    return f"process(es) {', '.join(absent)} of {place.processes} did not come to {place.coordinator} in time; there are: {came}"


def _answer(place: Place, deadline: float) -> str | None:
    host, _, port = place.coordinator.rpartition(":")
    me = {"host": socket.gethostname(), "process": place.process, "processes": place.processes}
    said = f"host {me['host']} (process {place.process} of {place.processes})"
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5) as server:
                server.sendall(json.dumps(me).encode())
                server.settimeout(max(deadline - time.monotonic(), 0) + 5)
                return json.loads(server.recv(LINE))["error"]
        except (OSError, ValueError):  # Process 0 is not there yet.
            time.sleep(PAUSE)
    return f"{said} could not reach process 0 at {place.coordinator} in time; is it running, and is the port open?"


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))
