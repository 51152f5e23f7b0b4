"""Elections between daemons of one program, by real clocks, at the double or at a real kube-apiserver."""

from __future__ import annotations

import itertools
import random
import time
from typing import Any

import pytest
import trio

# What httpcore does not close, and Python then does, is the socket of a TLS handshake that is cancelled.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)


async def test_one_leads_and_gives_the_lease_back_when_told_to_stop(election: Any, measured: Any) -> None:
    one, two, three = [await election.stand(name) for name in ("one", "two", "three")]
    leader = await election.winner()
    others = [daemon for daemon in (one, two, three) if daemon is not leader]
    took = []
    for _ in range(2):
        began = time.monotonic()
        await leader.stop()
        took.append(time.monotonic() - began)
        leader = await election.winner(*others)
        others.remove(leader)
        took.append(time.monotonic() - began)

    measured({"release": took[0], "hand-over": took[1], "release again": took[2], "hand-over again": took[3]})
    assert max(took) <= 1.0
    assert len(election.holds) == 3


async def test_a_crashed_leader_is_replaced_within_five_seconds(
    election: Any, measured: Any, when: Any
) -> None:
    one = await election.stand("one")
    await one.wins()
    two = await election.stand("two")
    three = await election.stand("three")
    await when(lambda: two.leader == three.leader == one.identity)
    began = time.monotonic()
    await one.crash()
    await election.winner(two, three)

    measured({"crash": time.monotonic() - began})
    assert time.monotonic() - began <= 5.0
    assert election.holds[1].begin >= election.holds[0].until  # which the crashed one never took back


async def test_a_frozen_api_server_ends_the_lead_before_another_one_begins(
    election: Any, cluster: Any, measured: Any
) -> None:
    daemons = [await election.stand(name) for name in ("one", "two", "three")]
    leader = await election.winner()
    began = time.monotonic()
    cluster.freeze()
    with trio.fail_after(5):
        await leader.over()
    ended, reason = time.monotonic(), leader.reason
    await trio.sleep(4 - (ended - began))  # longer than the lease
    assert not any(daemon.leads for daemon in daemons)
    cluster.thaw()
    thawed = time.monotonic()
    await election.winner()

    measured({"stepped down after": ended - began, "led again after": time.monotonic() - thawed})
    assert ended - began <= 2.1
    assert "could not be renewed" in reason


async def test_a_leader_cut_off_from_the_network_steps_down_first(
    election: Any, measured: Any, when: Any
) -> None:
    one = await election.stand("one")
    await one.wins()
    two = await election.stand("two")
    began = time.monotonic()
    one.network.hold()
    with trio.fail_after(5):
        await one.over()
    ended = time.monotonic()
    await two.wins()
    won = time.monotonic()
    measured({"stepped down after": ended - began, "replaced after": won - began})
    assert ended < won <= began + 5
    one.network.flow()  # what it sent then arrives now, and changes nothing
    await when(lambda: one.leader == two.identity)
    assert two.leads
    assert not one.leads


async def test_where_there_is_no_lease_it_is_made(election: Any, cluster: Any) -> None:
    """After as long as somebody might lead by one that was deleted just before."""
    code, _ = await cluster.http().ask("DELETE", cluster.path(election.lease))
    assert code == 200
    began = time.monotonic()
    for name in ("one", "two"):
        await election.stand(name)
    await election.winner()
    assert 3.0 <= time.monotonic() - began <= 4.0


async def test_a_lead_outlives_connections_that_are_cut(election: Any) -> None:
    one = await election.stand("one")
    two = await election.stand("two")
    leader = await election.winner()
    for _ in range(5):
        leader.network.cut()
        await trio.sleep(0.3)
    assert leader.leads
    assert leader.changes == 1
    assert not (two if leader is one else one).leads


async def test_a_lead_outlives_a_request_that_is_never_answered(election: Any) -> None:
    one = await election.stand("one")
    await one.wins()
    one.network.hold()
    await trio.sleep(1.2)  # connections of the time hang, and new ones work
    one.network.cut()
    one.network.flow()
    await trio.sleep(1.2)
    assert one.leads
    assert one.changes == 1


async def test_whoever_is_named_in_the_lease_leads(election: Any, cluster: Any) -> None:
    one = await election.stand("one")
    await one.wins()
    http = cluster.http()
    while True:
        code, lease = await http.ask("GET", cluster.path(election.lease))
        assert code == 200
        lease["spec"]["holderIdentity"] = "somebody else"
        code, _ = await http.ask("PUT", cluster.path(election.lease), lease)
        if code == 200:
            break
    edited = time.monotonic()
    with trio.fail_after(1):
        await one.over()
    assert "taken by somebody else" in one.reason
    await one.wins()  # since that one does not renew it
    assert time.monotonic() - edited >= 3.0


async def test_a_struck_out_holder_is_not_replaced_before_it_knows(election: Any, cluster: Any) -> None:
    """As with `kubectl patch lease`: the check of the election finds two at one time, if there were."""
    one = await election.stand("one")
    await one.wins()
    two = await election.stand("two")
    one.network.hold()  # so that it does not hear of it
    http = cluster.http()
    code, lease = await http.ask("GET", cluster.path(election.lease))
    lease["spec"]["holderIdentity"] = ""
    code, _ = await http.ask("PUT", cluster.path(election.lease), lease)
    assert code == 200
    await two.wins()
    assert len(election.holds) == 2


@pytest.mark.parametrize("cut_off", [False, True])
async def test_a_deleted_lease_is_not_taken_from_who_leads(
    election: Any, cluster: Any, cut_off: bool
) -> None:
    """Whether the leader can make it again, or does not even hear of it; and the fence goes on."""
    one = await election.stand("one")
    await one.wins()
    two = await election.stand("two")
    http = cluster.http()
    if cut_off:
        one.network.hold()
    code, _ = await http.ask("DELETE", cluster.path(election.lease))
    assert code == 200
    three = await election.stand("three")  # which never saw it
    if cut_off:
        winner = await election.winner(two, three)
        assert winner.fence > election.holds[0].fence
    else:
        await trio.sleep(4)
        assert one.leads
        assert one.changes == 1
        code, lease = await http.ask("GET", cluster.path(election.lease))
        assert (code, lease["spec"]["holderIdentity"]) == (200, one.identity)


async def test_the_fence_rises_with_each_lead_of_one_daemon(election: Any) -> None:
    one = await election.stand("one")
    await one.wins()
    one.network.hold()
    await one.over()
    one.network.flow()
    assert await one.wins() < 3.0  # nobody else took it: there is nothing to wait for
    await one.stop()
    again = await election.stand("one")
    await again.wins()
    assert len({hold.fence for hold in election.holds}) == 3


async def test_one_identity_for_two_daemons_is_none_for_two_leaders(election: Any, cluster: Any) -> None:
    one = await election.stand("one", identity="pricefeedd-0")
    two = await election.stand("two", identity="pricefeedd-0")
    leader = await election.winner()
    await trio.sleep(1.5)
    assert leader.leads
    assert not (two if leader is one else one).leads
    http = cluster.http()
    _, lease = await http.ask("GET", cluster.path(election.lease))
    assert lease["spec"]["holderIdentity"].startswith("pricefeedd-0_")


async def test_of_many_at_once_one_wins(election: Any) -> None:
    daemons = [await election.stand(str(number), lease_s=1.0, renew_deadline_s=0.8) for number in range(8)]
    await election.winner()
    for _ in range(3):
        leader = next(daemon for daemon in daemons if daemon.leads)
        await leader.stop()
        daemons.remove(leader)
        await election.winner(*daemons)
    assert len(election.holds) == 4


async def test_what_others_keep_in_the_lease_stays(election: Any, cluster: Any) -> None:
    http = cluster.http()
    _, lease = await http.ask("GET", cluster.path(election.lease))
    lease["metadata"] |= {"labels": {"team": "a"}, "annotations": {"b": "c"}}
    code, _ = await http.ask("PUT", cluster.path(election.lease), lease)
    assert code == 200
    one = await election.stand("one")
    await one.wins()
    _, lease = await http.ask("GET", cluster.path(election.lease))
    assert lease["metadata"]["labels"] == {"team": "a"}
    assert lease["metadata"]["annotations"]["b"] == "c"
    assert lease["metadata"]["annotations"]["pricefeedd/fence"] == str(one.fence)
    assert lease["spec"]["leaseDurationSeconds"] == 3
    lease["metadata"]["labels"]["team"] = "d"  # an edit in between costs no lead
    while (await http.ask("PUT", cluster.path(election.lease), lease))[0] == 409:
        _, lease = await http.ask("GET", cluster.path(election.lease))
        lease["metadata"]["labels"]["team"] = "d"
    await trio.sleep(1)
    _, lease = await http.ask("GET", cluster.path(election.lease))
    assert lease["metadata"]["labels"] == {"team": "d"}
    assert one.leads
    assert one.changes == 1


@pytest.mark.parametrize("seed", [1, 2])
async def test_in_any_disorder_there_is_one_leader_at_most(
    election: Any, cluster: Any, measured: Any, seed: int
) -> None:
    """Networks that split, cut connections, edits, deletions, a server that freezes, stops and crashes, at random."""
    chance = random.Random(seed)
    http = cluster.http()
    times = {"lease_s": 1.0, "renew_deadline_s": 0.7, "retry_s": 0.1}
    daemons = [await election.stand(str(number), **times) for number in range(3)]
    numbers = itertools.count(3)

    async def split() -> None:
        daemon = chance.choice(daemons)
        daemon.network.hold()
        await trio.sleep(chance.uniform(0.1, 1.5))
        daemon.network.flow()

    async def cut() -> None:
        chance.choice(daemons).network.cut()

    async def freeze() -> None:
        cluster.freeze()
        await trio.sleep(chance.uniform(0.1, 1.2))
        cluster.thaw()

    async def replace() -> None:
        daemon = chance.choice(daemons)
        daemons.remove(daemon)
        await (daemon.stop() if chance.random() < 0.5 else daemon.crash())
        daemons.append(await election.stand(str(next(numbers)), **times))

    async def delete() -> None:
        await http.ask("DELETE", cluster.path(election.lease))

    async def strike_out() -> None:
        code, lease = await http.ask("GET", cluster.path(election.lease))
        if code == 200:
            lease["spec"]["holderIdentity"] = ""
            await http.ask("PUT", cluster.path(election.lease), lease)

    faults = [split, split, cut, freeze, replace, replace, delete, strike_out]
    ends = time.monotonic() + 12
    while time.monotonic() < ends:
        await chance.choice(faults)()
        await trio.sleep(chance.uniform(0, 0.8))
    cluster.thaw()
    for daemon in daemons:
        daemon.network.flow()
    await election.winner()
    measured({"leads": len(election.holds)})
