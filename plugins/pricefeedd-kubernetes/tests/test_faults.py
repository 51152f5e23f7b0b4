"""What an API server and its neighbours do wrong, and what the operator is told of it."""

from __future__ import annotations

import time
from typing import Any

import pytest
import structlog
import trio

from pricefeedd_kubernetes.testing import KubeApi


@pytest.fixture
def said() -> Any:
    """Return what is logged of the Lease."""
    with structlog.testing.capture_logs() as logs:
        yield lambda: [line for line in logs if "Lease" in line["event"] or "API server" in line["event"]]


async def test_what_is_forbidden_is_told_once_and_heals(
    election: Any, double: KubeApi, said: Any, when: Any
) -> None:
    double.rights["elector"] = frozenset()
    one = await election.stand("one")
    await when(lambda: "403" in one.reason)
    asked = double.requests["get"]
    await trio.sleep(2)
    assert double.requests["get"] - asked <= 4  # it asks less and less often
    assert len(said()) == 1
    for part in ('User "elector" cannot get', "get, create and update", "namespace default", "RoleBinding"):
        assert part in said()[0]["reason"]
    double.rights["elector"] = frozenset({"get"})
    await when(lambda: "cannot update" in one.reason, within_s=12)
    assert [line["log_level"] for line in said()] == ["warning", "warning"]
    double.rights["elector"] = frozenset({"get", "create", "update"})
    await one.wins(12)
    assert said()[-1]["event"] == "the Lease can be reached again"


async def test_a_leader_that_loses_its_rights_steps_down(election: Any, double: KubeApi) -> None:
    one = await election.stand("one")
    await one.wins()
    began = time.monotonic()
    double.rights["elector"] = frozenset({"get"})
    await one.over()
    assert 1.0 <= time.monotonic() - began <= 2.1  # it does its best until then
    assert "could not be renewed for 2 s" in one.reason
    assert 'User "elector" cannot update' in one.reason


async def test_a_token_that_is_changed_costs_no_lead(
    election: Any, cluster: Any, double: KubeApi, tmp_path: Any
) -> None:
    """As in a pod: the file's content is another one, and a bit later the old token is not known any more."""
    token = tmp_path / "token"
    token.write_text("e-token\n")
    file = cluster.file("elector")
    file.write_text(file.read_text().replace('"token": "e-token"', f'"tokenFile": "{token}"'))
    one = await election.stand("one", kubeconfig=str(file))
    await one.wins()
    await trio.sleep(1)  # credentials that were read just now are not read again
    token.write_text("new-token\n")
    double.tokens["new-token"] = double.tokens.pop("e-token")
    await trio.sleep(2.5)
    assert one.leads
    assert one.changes == 1


async def test_who_is_not_known_any_more_is_told_so(
    election: Any, double: KubeApi, said: Any, when: Any
) -> None:
    one = await election.stand("one")
    await one.wins()
    del double.tokens["e-token"]
    await one.over()
    await when(lambda: "does not know us (401)" in one.reason)
    assert "kubeconfig" in one.reason
    assert [line["log_level"] for line in said()] == ["warning"]
    assert "e-token" not in str(said())


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_an_api_server_in_trouble_for_a_moment_costs_no_lead(
    election: Any, double: KubeApi, said: Any, code: int
) -> None:
    one = await election.stand("one")
    await one.wins()
    for _ in range(3):
        double.broken = (code, 1.0)
        await trio.sleep(0.5)
        double.broken = None
        await trio.sleep(0.9)
    assert one.leads
    assert one.changes == 1


async def test_an_api_server_in_trouble_ends_the_lead(election: Any, double: KubeApi, said: Any) -> None:
    one = await election.stand("one")
    await one.wins()
    double.broken = (503, 0)
    await one.over()
    await trio.sleep(2)
    assert "answered 503: the server is currently unable" in one.reason
    # Once while it led, and once since it stands anew.
    assert [line["event"] for line in said()] == ["the Lease cannot be reached"] * 2
    double.broken = None
    await one.wins(3)
    assert election.holds[1].fence > election.holds[0].fence


async def test_what_was_done_without_an_answer_is_found_out(election: Any, double: KubeApi) -> None:
    """A renewal that was written and never confirmed: the next one is refused for its version, and that is no loss."""
    one = await election.stand("one")
    await one.wins()
    double.fall_silent()
    await double.changed()
    await trio.sleep(0.3)
    double.cut()
    double.thaw()
    await trio.sleep(2)
    assert one.leads
    assert one.changes == 1


async def test_a_lease_won_without_an_answer_is_taken_all_the_same(election: Any, double: KubeApi) -> None:
    double.fall_silent()
    one = await election.stand("one")
    two = await election.stand("two")
    await trio.sleep(0.2)
    double.thaw()
    double.cut()  # both have asked; nobody was told
    leader = await election.winner()
    assert not (one if leader is two else two).leads


async def test_late_answers_are_not_believed(election: Any, double: KubeApi) -> None:
    one = await election.stand("one")
    await one.wins()
    double.latency_s = 0.7  # of two requests where one is needed
    await trio.sleep(3)
    assert one.leads
    double.latency_s = 2.5
    await one.over()
    await trio.sleep(3)
    assert not one.leads
    double.latency_s = 0.0
    await one.wins(5)


async def test_an_answer_that_is_no_lease_is_told(election: Any, double: KubeApi, when: Any) -> None:
    double.leases["default", election.lease] = {"kind": "Lease", "spec": {}}
    one = await election.stand("one")
    await when(lambda: "not a Lease" in one.reason)
    del double.leases["default", election.lease]
    await one.wins()


async def test_a_namespace_that_is_not_there_is_told(election: Any, double: KubeApi, when: Any) -> None:
    one = await election.stand("one", namespace="nowhere", lease_s=1.0, renew_deadline_s=0.8)
    await when(lambda: one.reason.startswith('namespaces "nowhere" not found; create it'))
    double.namespaces.add("nowhere")
    await one.wins(12)


async def test_stopping_takes_less_than_a_second_whatever_the_api_server_does(
    election: Any, double: KubeApi
) -> None:
    one = await election.stand("one")
    await one.wins()
    double.freeze()
    began = time.monotonic()
    await one.stop()
    assert time.monotonic() - began <= 1.05


async def test_a_stop_while_a_renewal_is_on_its_way_gives_the_lease_back(
    election: Any, double: KubeApi
) -> None:
    one = await election.stand("one")
    await one.wins()
    double.latency_s = 0.2
    asked = double.requests["update"]
    while double.requests["update"] == asked:  # noqa: ASYNC110  # until it is in the middle of one
        await trio.sleep(0.01)
    await trio.sleep(0.45)
    await one.stop()
    assert double.writes[-1].holder == ""
    lease = double.leases["default", election.lease]
    assert lease["spec"]["leaseDurationSeconds"] == 1
    assert lease["metadata"]["annotations"]["pricefeedd/fence"] == str(one.fence)


async def test_a_daemon_that_only_stood_by_leaves_the_lease_alone(election: Any, double: KubeApi) -> None:
    one = await election.stand("one")
    await one.wins()
    two = await election.stand("two")
    await trio.sleep(0.6)
    await two.stop()
    assert one.leads
    assert {write.holder for write in double.writes[1:]} == {one.identity}


async def test_nothing_is_logged_while_all_is_well(election: Any, double: KubeApi, said: Any) -> None:
    one = await election.stand("one")
    await one.wins()
    double.requests.clear()
    await trio.sleep(2)
    assert said() == []
    assert 4 <= double.requests["update"] <= 7
    assert double.requests["get"] == 0
    assert double.connections <= 3  # the fixture's, ours, and one to spare


async def test_a_kubeconfig_that_comes_later_is_found(
    election: Any, cluster: Any, double: KubeApi, said: Any, when: Any, tmp_path: Any
) -> None:
    file = tmp_path / "later"
    one = await election.stand("one", kubeconfig=str(file))
    await when(lambda: one.reason == f"{file}: no such file")
    assert [(line["log_level"], line["event"]) for line in said()] == [("error", "no way to the API server")]
    cluster.file("elector").rename(file)
    await one.wins(8)
