"""Processes wait for each other before JAX connects them, and all of them learn what is wrong."""

import contextlib
import json
import socket
import threading
import time

import pytest

from vlbeit_jax.errors import Exit, PeerLost, Reported
from vlbeit_jax.runtime import rendezvous as module
from vlbeit_jax.runtime.rendezvous import ProcessAddress, own_interface, rendezvous


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def meet(addresses, seconds=5.0):
    """Calls ``rendezvous`` in a thread for each address; returns the error of each, or None.

    A process that is missing may come late, so that another try helps; nothing else does.
    """
    errors = {}

    def call(index, address):
        try:
            rendezvous(address, seconds)
            errors[index] = None
        except Reported as error:
            errors[index] = str(error)
            late = any(said in str(error) for said in ("did not come", "could not reach"))
            assert error.code == (Exit.PEER_LOST if late else Exit.USAGE)

    threads = [threading.Thread(target=call, args=each) for each in enumerate(addresses)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [errors[index] for index in range(len(addresses))]


INTRODUCED = {"program": "vlbeit_jax", "host": "h", "process": 1, "processes": 3}
STRAY = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"[]",
    b"",
    b"{}",
    b"[" * 4000,
    json.dumps({"host": "h", "process": 1, "processes": 2}).encode(),  # Not of this program.
    *(
        json.dumps(INTRODUCED | wrong).encode()
        for wrong in ({"process": 7}, {"process": 0}, {"process": "1"}, {"process": []})
    ),
    json.dumps(INTRODUCED | {"process": True}).encode(),
    json.dumps(INTRODUCED | {"host": {}}).encode(),
]


def test_all_arrive_and_other_programs_are_ignored_and_counted(capsys):
    port = free_port()

    def stranger():
        for message in STRAY:
            with contextlib.suppress(OSError):
                with socket.create_connection(("localhost", port), timeout=2) as other:
                    other.sendall(message)

    late = []
    threads = [
        threading.Timer(0.3, stranger),
        threading.Timer(0.8, lambda: late.extend(meet([ProcessAddress(address, 3, 2)]))),
    ]
    address = f"localhost:{port}"
    for thread in threads:
        thread.start()
    assert meet([ProcessAddress(address, 3, process) for process in (1, 0)]) == [None, None]
    for thread in threads:
        thread.join()
    assert late == [None]
    said = f"{len(STRAY)} connection(s) of other programs to port {port} were ignored"
    assert said in capsys.readouterr().err


def test_two_processes_with_one_index_are_told():
    address = f"localhost:{free_port()}"
    first, *others = meet([ProcessAddress(address, 3, process) for process in (0, 1, 1)])
    assert first is not None and "both say that they are process 1" in first
    assert others == [first, first]


def test_processes_that_count_differently_are_told():
    address = f"localhost:{free_port()}"
    first, second = meet([ProcessAddress(address, 2, 0), ProcessAddress(address, 4, 1)])
    assert first is not None and "counts 4 processes" in first and second == first


def test_missing_processes_are_named():
    address = f"localhost:{free_port()}"
    first, second = meet([ProcessAddress(address, 4, process) for process in (0, 2)], seconds=1.0)
    assert first is not None and "process(es) 1, 3 of 4 did not come" in first and second == first
    (alone,) = meet([ProcessAddress(address, 2, 1)], seconds=0.5)
    assert alone is not None and "(process 1 of 2) could not reach process 0" in alone


def test_an_answer_that_names_many_hosts_arrives_whole(monkeypatch):
    long = f"process(es) 3 of 4 did not come, could not reach {'x' * 20_000}"
    monkeypatch.setattr(module, "_missing", lambda *_: PeerLost(long))
    address = f"localhost:{free_port()}"
    assert meet([ProcessAddress(address, 4, each) for each in (0, 1)], 1.0) == [long, long]


def test_a_name_that_does_not_exist_is_told_at_once(monkeypatch, capsys):
    def fails(number):
        def resolve(*_, **__):
            raise socket.gaierror(number, "Name or service not known")

        return resolve

    monkeypatch.setattr(module.socket, "getaddrinfo", fails(socket.EAI_NONAME))
    began = time.monotonic()
    (error,) = meet([ProcessAddress("nod1:9", 2, 1)], seconds=60.0)
    assert error is not None and "the name nod1 of process 0's host cannot be resolved" in error
    assert time.monotonic() - began < 5
    # A name service that does not answer may answer later.
    monkeypatch.setattr(module.socket, "getaddrinfo", fails(socket.EAI_AGAIN))
    (error,) = meet([ProcessAddress("node1:9", 2, 1)], seconds=0.5)
    assert error is not None and "could not reach process 0 at node1:9 in time" in error
    assert capsys.readouterr().err.count("node1 of process 0's host cannot be resolved") == 1


# As Debian maps the name of a machine; of another machine, as behind NAT; none.
@pytest.mark.parametrize("found", [["127.0.1.1"], ["203.0.113.9"], []], ids=str)
def test_a_machine_that_does_not_know_its_address_listens_on_all(monkeypatch, found):
    given = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in found]
    monkeypatch.setattr(module.socket, "getaddrinfo", lambda *_, **__: given)
    assert own_interface("node1") == ""


def test_process_0_listens_on_the_interface_of_its_name():
    assert own_interface("localhost") in ("127.0.0.1", "::1")
    assert own_interface("127.0.0.1") == "127.0.0.1"
    with module._listen(ProcessAddress(f"127.0.0.1:{free_port()}", 2, 0)) as server:
        assert server.getsockname()[0] == "127.0.0.1"
