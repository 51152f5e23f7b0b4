"""What an election relies on: the same of the double as of a real kube-apiserver (see `contrib/kube-apiserver`)."""

from __future__ import annotations

import re
from typing import Any

import pytest

SPEC = {
    "holderIdentity": "one",
    "leaseDurationSeconds": 3,
    "acquireTime": "2026-11-21T20:00:00.000000Z",
    "renewTime": "2026-11-21T20:00:00.123456Z",
    "leaseTransitions": 1,
}


def body(name: str, spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, **metadata},
        "spec": SPEC if spec is None else spec,
    }


def refused(answer: tuple[int, dict[str, Any]], code: int, reason: str, message: str) -> None:
    """Assert that an answer is a Status of this kind; the message is a regular expression."""
    assert answer[0] == code, answer
    assert answer[1]["kind"] == "Status"
    assert answer[1]["apiVersion"] == "v1"
    assert (answer[1]["status"], answer[1]["code"]) == ("Failure", code)
    assert answer[1].get("reason", "") == reason, answer
    assert re.search(message, answer[1]["message"]), answer


@pytest.fixture
def http(cluster: Any) -> Any:
    return cluster.http()


@pytest.fixture
def name(cluster: Any) -> Any:
    return cluster.lease()


async def test_what_is_made_is_read_again(cluster: Any, http: Any, name: str) -> None:
    code, made = await http.ask("POST", cluster.path(), body(name, annotations={"pricefeedd/fence": "7"}))
    assert code == 201
    assert (made["kind"], made["apiVersion"]) == ("Lease", "coordination.k8s.io/v1")
    metadata = made["metadata"]
    assert (metadata["name"], metadata["namespace"]) == (name, "default")
    assert metadata["resourceVersion"].isdigit()
    assert re.fullmatch(r"[0-9a-f-]{36}", metadata["uid"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", metadata["creationTimestamp"])
    assert metadata["annotations"] == {"pricefeedd/fence": "7"}
    assert made["spec"] == SPEC
    assert await http.ask("GET", cluster.path(name)) == (200, made)
    code, listed = await http.ask("GET", cluster.path())
    assert (code, listed["kind"]) == (200, "LeaseList")
    assert name in [item["metadata"]["name"] for item in listed["items"]]


async def test_what_is_not_there_is_not_found(cluster: Any, http: Any, name: str) -> None:
    message = rf'^leases\.coordination\.k8s\.io "{name}" not found$'
    refused(await http.ask("GET", cluster.path(name)), 404, "NotFound", message)
    refused(await http.ask("DELETE", cluster.path(name)), 404, "NotFound", message)
    refused(
        await http.ask("POST", cluster.path(namespace="nowhere"), body(name)),
        404,
        "NotFound",
        '^namespaces "nowhere" not found$',
    )
    refused(await http.ask("GET", cluster.path(name, "nowhere")), 404, "NotFound", message)


async def test_it_is_made_once(cluster: Any, http: Any, name: str) -> None:
    assert (await http.ask("POST", cluster.path(), body(name)))[0] == 201
    refused(
        await http.ask("POST", cluster.path(), body(name)),
        409,
        "AlreadyExists",
        rf'^leases\.coordination\.k8s\.io "{name}" already exists$',
    )


async def test_a_version_is_replaced_once(cluster: Any, http: Any, name: str) -> None:
    _, made = await http.ask("POST", cluster.path(), body(name))
    first = {**made, "spec": {**made["spec"], "holderIdentity": "two"}}
    code, replaced = await http.ask("PUT", cluster.path(name), first)
    assert code == 200
    assert replaced["spec"]["holderIdentity"] == "two"
    assert int(replaced["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    for key in ("uid", "creationTimestamp"):
        assert replaced["metadata"][key] == made["metadata"][key]
    second = {**made, "spec": {**made["spec"], "holderIdentity": "three"}}
    refused(
        await http.ask("PUT", cluster.path(name), second),
        409,
        "Conflict",
        rf'^Operation cannot be fulfilled on leases\.coordination\.k8s\.io "{name}": the object has been modified',
    )
    assert await http.ask("GET", cluster.path(name)) == (200, replaced)


async def test_a_replacement_names_its_version(cluster: Any, http: Any, name: str) -> None:
    assert (await http.ask("POST", cluster.path(), body(name)))[0] == 201
    refused(
        await http.ask("PUT", cluster.path(name), body(name)),
        422,
        "Invalid",
        r"metadata\.resourceVersion: Invalid value: 0x0: must be specified for an update",
    )
    code, answer = await http.ask("PUT", cluster.path(name), body(name, resourceVersion="abc"))
    assert code == 500, answer


async def test_what_was_deleted_is_not_replaced(cluster: Any, http: Any, name: str) -> None:
    """Its last holder finds out, whether or not somebody made it again."""
    _, made = await http.ask("POST", cluster.path(), body(name))
    assert (await http.ask("DELETE", cluster.path(name)))[0] == 200
    refused(await http.ask("PUT", cluster.path(name), made), 409, "Conflict", "UID in precondition")
    code, again = await http.ask("POST", cluster.path(), body(name))
    assert code == 201
    assert again["metadata"]["uid"] != made["metadata"]["uid"]
    assert int(again["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    refused(await http.ask("PUT", cluster.path(name), made), 409, "Conflict", "UID in precondition")


async def test_without_a_uid_what_was_deleted_is_made_again(cluster: Any, http: Any, name: str) -> None:
    """Whatever version is named: so who replaces must name the uid as well."""
    _, made = await http.ask("POST", cluster.path(), body(name))
    uid = made["metadata"].pop("uid")
    assert (await http.ask("DELETE", cluster.path(name)))[0] == 200
    code, again = await http.ask("PUT", cluster.path(name), made)
    assert code == 201
    assert again["metadata"]["uid"] != uid


async def test_a_new_one_has_no_version_yet(cluster: Any, http: Any, name: str) -> None:
    code, answer = await http.ask("POST", cluster.path(), body(name, resourceVersion="1"))
    assert code == 500, answer
    assert "resourceVersion should not be set on objects to be created" in answer["message"]


async def test_what_changes_nothing_gets_no_new_version(cluster: Any, http: Any, name: str) -> None:
    _, made = await http.ask("POST", cluster.path(), body(name))
    code, same = await http.ask("PUT", cluster.path(name), made)
    assert code == 200
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_a_holder_may_be_left_out(cluster: Any, http: Any, name: str) -> None:
    """As it is given back."""
    _, made = await http.ask("POST", cluster.path(), body(name))
    made["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
    code, given_back = await http.ask("PUT", cluster.path(name), made)
    assert code == 200
    assert not given_back["spec"].get("holderIdentity")
    assert given_back["spec"]["leaseDurationSeconds"] == 1


async def test_without_a_spec_it_is_a_lease_as_well(cluster: Any, http: Any, name: str) -> None:
    code, made = await http.ask("POST", cluster.path(), body(name, {}))
    assert code == 201
    assert not made.get("spec")


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("leaseDurationSeconds", 0, 422),
        ("leaseTransitions", -1, 422),
        ("leaseDurationSeconds", 2.5, 400),
        ("renewTime", "2026-11-21T20:00:00Z", 400),
        ("renewTime", 1795291200, 400),
    ],
)
async def test_what_no_lease_can_say_is_refused(
    cluster: Any, http: Any, name: str, key: str, value: object, code: int
) -> None:
    answer = await http.ask("POST", cluster.path(), body(name, {**SPEC, key: value}))
    assert answer[0] == code, answer
    assert answer[1]["reason"] == {400: "BadRequest", 422: "Invalid"}[code]


async def test_names_must_agree(cluster: Any, http: Any, name: str) -> None:
    _, made = await http.ask("POST", cluster.path(), body(name))
    other = {**made, "metadata": {**made["metadata"], "name": f"{name}x"}}
    refused(
        await http.ask("PUT", cluster.path(name), other),
        400,
        "BadRequest",
        "does not match the name on the URL",
    )
    other = body(name, namespace="elsewhere")
    refused(await http.ask("POST", cluster.path(), other), 400, "BadRequest", "does not match the namespace")
    answer = await http.ask("POST", cluster.path(), body("No_Name"))
    refused(answer, 422, "Invalid", "metadata.name")


async def test_who_is_not_known_is_refused(cluster: Any, http: Any, name: str) -> None:
    answer = await http.ask("GET", cluster.path(name), token="nobody's")
    refused(answer, 401, "Unauthorized", "^Unauthorized$")
    answer = await http.ask("GET", cluster.path(name), token="")
    refused(answer, 403, "Forbidden", 'User "system:anonymous" cannot get resource "leases"')


async def test_who_may_not_is_told_what(cluster: Any, name: str) -> None:
    stranger = cluster.http("stranger")
    place = 'resource "leases" in API group "coordination.k8s.io" in the namespace "default"'
    named = rf'^leases\.coordination\.k8s\.io "{name}" is forbidden: User "stranger" cannot'
    refused(await stranger.ask("GET", cluster.path(name)), 403, "Forbidden", f"{named} get {place}$")
    refused(
        await stranger.ask("PUT", cluster.path(name), body(name)),
        403,
        "Forbidden",
        f"{named} update {place}$",
    )
    refused(
        await stranger.ask("POST", cluster.path(), body(name)),
        403,
        "Forbidden",
        rf'^leases\.coordination\.k8s\.io is forbidden: User "stranger" cannot create {place}$',
    )


async def test_an_elector_needs_no_more_than_three_rights(cluster: Any, http: Any, name: str) -> None:
    elector = cluster.http("elector")
    code, made = await elector.ask("POST", cluster.path(), body(name))
    assert code == 201
    assert (await elector.ask("PUT", cluster.path(name), made))[0] == 200
    assert (await elector.ask("GET", cluster.path(name)))[0] == 200
    assert (await elector.ask("DELETE", cluster.path(name)))[0] == 403
    assert (await elector.ask("GET", cluster.path()))[0] == 403
