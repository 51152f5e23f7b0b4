"""When a Lease is free, and what is written into it, by a clock of the test's."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pricefeedd_kubernetes.record import FENCE, Record, Sight, micro_time, released, taken


def lease(version: int = 1, *, uid: str = "u", fence: str = "", **spec: Any) -> Record:
    metadata: dict[str, Any] = {"name": "n", "namespace": "d", "resourceVersion": str(version), "uid": uid}
    if fence:
        metadata["annotations"] = {FENCE: fence}
    return Record.read({"metadata": metadata, "spec": spec})


HELD = {"holderIdentity": "a", "leaseDurationSeconds": 3, "renewTime": "r1"}


def test_it_is_free_when_its_length_has_passed_since_it_was_seen_to_change() -> None:
    sight = Sight(10)
    assert sight.free_at == math.inf
    sight.see(lease(1, **HELD), 100)
    assert sight.free_at == 103
    sight.see(lease(1, **HELD), 102)
    assert sight.free_at == 103
    sight.see(lease(2, **{**HELD, "renewTime": "r2"}), 102.5)
    assert sight.free_at == 105.5


def test_what_the_lease_says_about_the_time_does_not_matter() -> None:
    sight = Sight(3)
    sight.see(lease(1, **{**HELD, "renewTime": "1970-01-01T00:00:00.000000Z"}), 100)
    assert sight.free_at == 103


def test_a_new_label_is_no_renewal_and_another_object_is() -> None:
    sight = Sight(3)
    sight.see(lease(1, **HELD), 100)
    sight.see(lease(9, **HELD), 101)
    assert sight.free_at == 103
    sight.see(lease(10, uid="other", **HELD), 102)
    assert sight.free_at == 105


def test_what_was_given_back_is_free_at_once() -> None:
    sight = Sight(3)
    sight.see(lease(1, **HELD), 100)
    sight.see(lease(2, holderIdentity="", leaseDurationSeconds=1, renewTime="r2", acquireTime="r2"), 101)
    assert sight.free_at == 101


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"holderIdentity": ""},
        {"leaseDurationSeconds": 3},
        {"leaseDurationSeconds": 1, "acquireTime": "a", "renewTime": "r1"},
    ],
)
def test_what_somebody_struck_out_is_not(spec: dict[str, Any]) -> None:
    sight = Sight(3)
    sight.see(lease(1, **HELD), 100)
    sight.see(lease(2, **spec), 101)
    assert sight.free_at == 104


def test_a_deleted_one_is_free_when_its_holder_must_have_noticed() -> None:
    sight = Sight(3)
    sight.see(None, 100)
    sight.see(None, 102)
    assert sight.free_at == 103
    sight.see(lease(1, **{**HELD, "leaseDurationSeconds": 15}), 102.5)
    sight.see(None, 103)
    sight.see(None, 104)
    assert sight.free_at == 118


def test_the_fence_rises_whatever_becomes_of_lease_and_clock() -> None:
    sight = Sight(3)
    assert sight.next_fence(1_000) == 1_000
    sight.see(lease(1, fence="5000", **HELD), 100)
    assert sight.next_fence(1_000) == 5_001  # the clock went back
    assert sight.next_fence(9_000) == 9_000
    sight.see(None, 101)
    sight.see(lease(2, uid="other", **HELD), 102)
    assert sight.next_fence(1_000) == 5_001  # made again by somebody who knew nothing


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "9" * 16, "١"])
def test_a_fence_that_is_none_counts_for_nothing(text: str) -> None:
    assert lease(1, fence=text).fence == 0


def test_what_is_written_keeps_what_others_wrote() -> None:
    old = Record.read(
        {
            "metadata": {
                "name": "n",
                "resourceVersion": "7",
                "uid": "u",
                "labels": {"a": "b"},
                "annotations": {"c": "d"},
                "managedFields": [{}],
            },
            "spec": {**HELD, "leaseTransitions": 4, "strategy": "s"},
        }
    )
    written = taken(
        old,
        name="n",
        namespace="d",
        holder="b",
        lease_s=2.1,
        fence=17,
        acquired_us=1_000_001,
        renewed_us=2_000_002,
    )
    assert written["metadata"] == {
        "name": "n",
        "namespace": "d",
        "resourceVersion": "7",
        "uid": "u",
        "labels": {"a": "b"},
        "annotations": {"c": "d", FENCE: "17"},
    }
    assert written["spec"] == {
        "holderIdentity": "b",
        "leaseDurationSeconds": 3,
        "acquireTime": "1970-01-01T00:00:01.000001Z",
        "renewTime": "1970-01-01T00:00:02.000002Z",
        "leaseTransitions": 5,
        "strategy": "s",
    }
    given_back = released(old, fence=17, wall_us=0)
    assert given_back["spec"]["holderIdentity"] == ""
    assert given_back["spec"]["leaseDurationSeconds"] == 1
    assert given_back["spec"]["leaseTransitions"] == 4


@pytest.mark.parametrize("raw", [None, [], "x", {}, {"metadata": None}, {"metadata": {}, "spec": []}])
def test_what_is_no_lease_is_told(raw: Any) -> None:
    with pytest.raises(ValueError, match="not a Lease"):
        Record.read(raw)


def test_who_takes_it_never_writes_what_giving_it_back_looks_like() -> None:
    held = taken(
        None,
        name="n",
        namespace="d",
        holder="b",
        lease_s=1,
        fence=1,
        acquired_us=1_000_001,
        renewed_us=1_000_002,
    )
    held["metadata"]["resourceVersion"] = "1"
    assert not Record.read(held).released
    held["spec"]["holderIdentity"] = ""
    assert not Record.read(held).released
    assert Record.read(released(Record.read(held), fence=1, wall_us=5)).released


def test_times_have_six_digits() -> None:
    assert micro_time(1_795_291_200_000_000) == "2026-11-21T20:00:00.000000Z"
