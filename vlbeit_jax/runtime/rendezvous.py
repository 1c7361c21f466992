"""Waits until every process has arrived, before JAX connects them.

If a process is missing, JAX ends the others without saying which one they waited for. So process 0
first listens on the coordinator's port, hears from each of the others, and answers all of them at
once. It then frees the port for JAX.
"""

import contextlib
import json
import socket
import time
from typing import Any, NamedTuple

from vlbeit_jax.errors import UsageError

MAX_BYTES = 4096  # Longest message.
RETRY_SECONDS = 0.2  # Between two attempts to reach process 0.
REPLY_SECONDS = 5  # How long a connected peer may take for a message.


class ProcessAddress(NamedTuple):
    """One process of a run, and where process 0 is.

    Attributes:
      coordinator: HOST:PORT of process 0.
      processes: number of processes.
      process: index of this process, from 0.
    """

    coordinator: str
    processes: int
    process: int

    @property
    def port(self) -> int:
        """Port of the coordinator."""
        return int(self.coordinator.rpartition(":")[2])


def rendezvous(address: ProcessAddress, seconds: float) -> None:
    """Returns when all processes have arrived.

    Args:
      address: of this process.
      seconds: how long to wait for the others.

    Raises:
      UsageError: some processes are missing, two have the same index, or they disagree about their
        number. Every process that arrived raises the same error.
    """
    deadline = time.monotonic() + seconds
    meet = _collect if address.process == 0 else _report_to_process_0
    error = meet(address, deadline)
    if error:
        raise UsageError(error)


def _collect(address: ProcessAddress, deadline: float) -> str | None:
    """Process 0: hears from the others until all are there, and answers them; returns the error."""
    own = _introduction(address)
    present, conflict = {0: own}, None
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(_listen(address.port))
        except OSError as error:
            return (
                f"host {own['host']} (process 0) cannot listen on port {address.port}: {error}; "
                "choose another port"
            )
        peers = []
        while len(present) < address.processes and not conflict:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            server.settimeout(left)
            try:
                peer = stack.enter_context(server.accept()[0])
                peer.settimeout(REPLY_SECONDS)
                said = json.loads(peer.recv(MAX_BYTES))
                conflict = _conflict(said, own, present)
            except (OSError, ValueError, KeyError, TypeError):
                # Another program, such as a port scanner, or the time is up.
                continue
            peers.append(peer)
            if not conflict:
                present[said["process"]] = said
        error = conflict or _missing(address, present)
        for peer in peers:
            with contextlib.suppress(OSError):  # The peer has given up by itself.
                peer.sendall(json.dumps({"error": error}).encode())
    return error


def _conflict(said: Any, own: dict[str, Any], present: dict[int, Any]) -> str | None:
    """Compares an introduction with those of the processes present so far."""
    name = f"host {said['host']} (process {said['process']})"
    if said["processes"] != own["processes"]:
        return (
            f"{name} counts {said['processes']} processes, "
            f"but host {own['host']} (process 0) counts {own['processes']}"
        )
    if said["process"] in present:
        other = present[said["process"]]["host"]
        return f"{name} and host {other} both say that they are process {said['process']}"
    return None


def _missing(address: ProcessAddress, present: dict[int, Any]) -> str | None:
    absent = [str(process) for process in range(address.processes) if process not in present]
    if not absent:
        return None
    came = ", ".join(f"{process} on {said['host']}" for process, said in sorted(present.items()))
    return (
        f"process(es) {', '.join(absent)} of {address.processes} did not come to "
        f"{address.coordinator} in time; present: {came}"
    )


def _report_to_process_0(address: ProcessAddress, deadline: float) -> str | None:
    """Every other process: reports to process 0 and waits for its answer; returns the error."""
    host, _, port = address.coordinator.rpartition(":")
    own = _introduction(address)
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), REPLY_SECONDS) as server:
                server.sendall(json.dumps(own).encode())
                server.settimeout(max(deadline - time.monotonic(), 0) + REPLY_SECONDS)
                return json.loads(server.recv(MAX_BYTES))["error"]
        except (OSError, ValueError):  # Process 0 does not listen yet.
            time.sleep(RETRY_SECONDS)
    return (
        f"host {own['host']} (process {address.process} of {address.processes}) could not reach "
        f"process 0 at {address.coordinator} in time; is it running, and is the port open?"
    )


def _introduction(address: ProcessAddress) -> dict[str, Any]:
    """What a process says about itself."""
    return {
        "host": socket.gethostname(),
        "process": address.process,
        "processes": address.processes,
    }


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))
