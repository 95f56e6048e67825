"""Several servers, and several processes that send: each server has its share."""

import os
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.cli import main
from inferry_client.load.answers import expect_labels
from inferry_client.load.locust_run import ClosedLoop
from inferry_client.load.payloads import Payloads
from inferry_client.load.sharing import place_of_user, places_of_channels
from testkit import brightness_model
from testkit.scripted_server import serving


@given(users=st.integers(1, 40), processes=st.integers(1, 8), servers=st.integers(1, 9))
def test_users_of_all_processes_are_spread_evenly_over_the_servers(users: int, processes: int, servers: int) -> None:
    places = [
        place_of_user(number, process=process, processes=processes)
        for process in range(processes)
        for number in range(users // processes + (process < users % processes))
    ]
    shares = Counter(place % servers for place in places)
    assert max(shares.values()) - min(shares[server] for server in range(servers)) <= 1


@given(processes=st.integers(1, 8), servers=st.integers(1, 9))
def test_an_open_loops_connections_are_as_many_to_every_server(processes: int, servers: int) -> None:
    for process in range(processes):
        shares = Counter(place % servers for place in places_of_channels(process, servers=servers))
        assert len(shares) == servers
        assert len(set(shares.values())) == 1
        assert shares.total() >= 4


@pytest.mark.parametrize("options", [["--users", "2", "--processes", "2"], ["--rate", "100", "--processes", "2"]])
def test_two_processes_send_to_both_servers(options: list[str]) -> None:
    with serving(brightness_model.scripts()) as one, serving(brightness_model.scripts()) as two:
        addresses = f"{one.address},{two.address}"
        main(["load", "--server", addresses, "--duration", "1s", *options])
        assert min(len(server.requests("ModelInfer")) for server in (one, two)) > 10


def test_users_need_no_more_processes_than_there_are_cores_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    loop = ClosedLoop("127.0.0.1:1", Payloads((b"",), expect_labels("m", rows=1)), users=10_000, spawn_rate=1)
    assert len(loop._commands(1)) == 1
