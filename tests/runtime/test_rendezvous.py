"""Processes wait for each other before JAX connects them, and all of them learn what is wrong."""

import contextlib
import socket
import threading

from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.rendezvous import ProcessAddress, rendezvous


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def meet(addresses, seconds=5.0):
    """Calls ``rendezvous`` in a thread for each address; returns the error of each, or None."""
    errors = {}

    def call(index, address):
        try:
            rendezvous(address, seconds)
            errors[index] = None
        except UsageError as error:
            errors[index] = str(error)

    threads = [threading.Thread(target=call, args=each) for each in enumerate(addresses)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [errors[index] for index in range(len(addresses))]


def test_all_arrive_and_other_programs_are_ignored():
    port = free_port()

    def stranger():
        for message in (b"GET / HTTP/1.1\r\n\r\n", b"[]", b""):
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
