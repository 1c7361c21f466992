"""Waits until every process has arrived, before JAX connects them.

If a process is missing, JAX ends the others without saying which one they waited for. So process 0
first listens on the coordinator's port, hears from each of the others, and answers all of them at
once. It then frees the port for JAX.

The listener accepts one message of a process: a JSON object with the entries of ``_introduction``.
It reads at most ``MAX_BYTES``, runs nothing of what it reads, and ignores everything else.
"""

import contextlib
import ipaddress
import json
import socket
import sys
import time
from typing import Any, NamedTuple

from vlbeit_jax.errors import Exit, PeerLost, Reported, UsageError

MAX_BYTES, MAX_ANSWER = 4096, 2**20  # Longest message to process 0, and from it.
RETRY_SECONDS = 0.2  # Between two attempts to reach process 0.
REPLY_SECONDS = 5  # How long a connected peer may take for a message.
PROGRAM = "vlbeit_jax"  # What a process of ours says that it is.
NO_SUCH_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
EVERYWHERE = ""  # All interfaces.


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

    @property
    def host(self) -> str:
        """Name or address of process 0's host."""
        return self.coordinator.rpartition(":")[0].strip("[]")


def rendezvous(address: ProcessAddress, seconds: float) -> None:
    """Returns when all processes have arrived.

    Args:
      address: of this process.
      seconds: how long to wait for the others.

    Raises:
      PeerLost: some processes are missing. They may come late, so launch scripts try it again.
      UsageError: two processes have the same index, or they disagree about their number. Every
        process that arrived raises the same error.
    """
    deadline = time.monotonic() + seconds
    meet = _collect if address.process == 0 else _report_to_process_0
    error = meet(address, deadline)
    if error:
        raise error


def _collect(address: ProcessAddress, deadline: float) -> Reported | None:
    """Process 0: hears from the others until all are there, and answers them; returns the error."""
    own = _introduction(address)
    present, conflict = {0: own}, None
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(_listen(address))
        except OSError as error:
            return UsageError(
                f"host {own['host']} (process 0) cannot listen on port {address.port}: {error}; "
                "choose another port"
            )
        peers, ignored = [], 0
        while len(present) < address.processes and not conflict:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            server.settimeout(left)
            try:
                peer = stack.enter_context(server.accept()[0])
            except OSError:  # The time is up.
                continue
            said = _introduced(peer)
            if said is None:  # Another program, such as a port scanner.
                ignored += 1
                continue
            conflict = _conflict(said, own, present)
            peers.append(peer)
            if not conflict:
                present[said["process"]] = said
        error = UsageError(conflict) if conflict else _missing(address, present)
        if ignored:
            said = f"{ignored} connection(s) of other programs to port {address.port} were ignored"
            print(said, file=sys.stderr)
        for peer in peers:
            with contextlib.suppress(OSError):  # The peer has given up by itself.
                peer.sendall(json.dumps(_answer(error)).encode())
    return error


def _introduced(peer: socket.socket) -> dict[str, Any] | None:
    """Returns the introduction that a peer sends; None if it is no process of a run."""
    try:
        peer.settimeout(REPLY_SECONDS)
        said = json.loads(peer.recv(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or said.get("program") != PROGRAM:
        return None
    numbers = [said.get("process"), said.get("processes")]
    if any(type(number) is not int for number in numbers) or not isinstance(said.get("host"), str):
        return None
    return said if 0 < said["process"] < said["processes"] else None


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


def _answer(error: Reported | None) -> dict[str, Any]:
    """Returns what process 0 tells the others."""
    return {"error": str(error), "code": error.code} if error else {"error": None}


def _answered(said: dict[str, Any]) -> Reported | None:
    """Returns what process 0 has told."""
    if said["error"] is None:
        return None
    kind = PeerLost if said.get("code") == Exit.PEER_LOST else UsageError
    return kind(str(said["error"]))


def _missing(address: ProcessAddress, present: dict[int, Any]) -> PeerLost | None:
    absent = [str(process) for process in range(address.processes) if process not in present]
    if not absent:
        return None
    came = ", ".join(f"{process} on {said['host']}" for process, said in sorted(present.items()))
    return PeerLost(
        f"process(es) {', '.join(absent)} of {address.processes} did not come to "
        f"{address.coordinator} in time; present: {came}; look at their output, or raise "
        "cluster.initialization_timeout"
    )


def _report_to_process_0(address: ProcessAddress, deadline: float) -> Reported | None:
    """Every other process: reports to process 0 and waits for its answer; returns the error."""
    own, told = _introduction(address), False
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((address.host, address.port), REPLY_SECONDS) as server:
                server.sendall(json.dumps(own).encode())
                server.settimeout(max(deadline - time.monotonic(), 0) + REPLY_SECONDS)
                return _answered(json.loads(_until_closed(server)))
        except socket.gaierror as error:
            said = f"the name {address.host} of process 0's host cannot be resolved ({error})"
            if error.errno in NO_SUCH_NAME:
                return UsageError(
                    f"host {own['host']} (process {address.process}): {said}; correct the name"
                )
            if not told:  # The name service may answer later.
                print(f"{said}; trying again", file=sys.stderr)
            told = True
            time.sleep(RETRY_SECONDS)
        except (OSError, ValueError, TypeError, KeyError):
            # Process 0 does not listen yet, or another program answers at its port.
            time.sleep(RETRY_SECONDS)
    return PeerLost(
        f"host {own['host']} (process {address.process} of {address.processes}) could not reach "
        f"process 0 at {address.coordinator} in time; is it running, and is the port open?"
    )


def _until_closed(server: socket.socket) -> bytes:
    """Returns what process 0 sends. It names every host, so it may come in several pieces."""
    answer = b""
    while len(answer) < MAX_ANSWER and (piece := server.recv(MAX_BYTES)):
        answer += piece
    return answer


def _introduction(address: ProcessAddress) -> dict[str, Any]:
    """What a process says about itself."""
    return {
        "program": PROGRAM,
        "host": socket.gethostname(),
        "process": address.process,
        "processes": address.processes,
    }


def own_interface(host: str) -> str:
    """Returns the address of this machine at which process 0 listens.

    Args:
      host: name or address of this machine, as the other processes know it.

    Returns:
      Of a loopback name, such as localhost, the loopback; otherwise the address that the name has,
      so that no other interface listens. ``EVERYWHERE`` if this machine does not know its own
      address: Debian maps the name of a machine to 127.0.1.1, and behind NAT others use an address
      that the machine does not have.
    """
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return EVERYWHERE
    local = host == "localhost" or _is_loopback(host)
    for family, _, _, _, address in addresses:
        if _is_loopback(str(address[0])) == local:
            with contextlib.suppress(OSError), socket.socket(family) as probe:
                probe.bind((address[0], 0, *address[2:]))
                return str(address[0])
    return EVERYWHERE


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _listen(address: ProcessAddress) -> socket.socket:
    interface = own_interface(address.host)
    if interface:
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        return socket.create_server((interface, address.port), family=family)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", address.port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", address.port))
