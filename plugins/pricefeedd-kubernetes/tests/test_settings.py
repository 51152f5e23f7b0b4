"""What can be set, what is refused, and that the README and the example tell it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
import yaml

from pricefeedd_kubernetes import pricefeedd_electors
from pricefeedd_kubernetes.candidate import holder
from pricefeedd_kubernetes.settings import KubernetesSettings
from pricefeedd_kubernetes.testing import VERBS

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"lease_s": 2.0}, "lease_s (2) must be greater than renew_deadline_s (2)"),
        ({"renew_deadline_s": 0.4}, "renew_deadline_s (0.4) must be greater than retry_s (0.4)"),
        ({"lease_s": 0.5}, "expected 1 to 3600, found 0.5"),
        ({"retry_s": float("nan")}, "found nan"),
        ({"lease": "No_Name"}, "expected a name of lower-case letters"),
        ({"lease": ""}, "expected a name of lower-case letters"),
        ({"namespace": "a.b"}, "expected at most 63 lower-case letters"),
        ({"identity": "a\nb"}, "printable"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        KubernetesSettings(**settings)


def test_the_elector_is_brought() -> None:
    (elector,) = pricefeedd_electors()
    assert (elector.name, elector.api_version, elector.settings) == ("kubernetes", 1, KubernetesSettings)


def test_the_readme_names_each_key_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", README, re.MULTILINE))
    for field in attrs.fields(KubernetesSettings):
        shown = rows.pop(field.name)
        if field.default == "":
            assert not shown.startswith("`"), field.name  # in words
        else:
            expected = f'"{field.default}"' if isinstance(field.default, str) else f"{field.default}"
            assert shown == f"`{expected}`", field.name


def test_the_readme_asks_for_the_rights_that_are_needed() -> None:
    blocks = [part.split("```")[0] for part in README.split("```yaml\n")[1:]]
    role = next(found for block in blocks for found in yaml.safe_load_all(block) if found["kind"] == "Role")
    verbs = {verb for rule in role["rules"] for verb in rule["verbs"]}
    assert verbs == {"get", "create", "update"}
    assert verbs < VERBS
    named = next(rule for rule in role["rules"] if "resourceNames" in rule)
    assert named["resourceNames"] == [KubernetesSettings().lease]


def test_one_identity_is_never_two_names() -> None:
    assert holder("", "host:1:abc") == "host:1:abc"
    assert holder("mine", "host:1:abc") == holder("mine", "host:1:abc") != holder("mine", "host:1:abd")
    assert holder("mine", "host:1:abc").startswith("mine_")


async def test_the_double_is_a_command(nursery: trio.Nursery, tmp_path: Path) -> None:
    """For daemons that are processes of their own."""
    import subprocess

    path = tmp_path / "kubeconfig"
    arguments = [
        "--token",
        "t",
        "--kubeconfig",
        str(path),
        "--namespace",
        "feeds",
        "--server",
        "http://proxy:1",
    ]
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "pricefeedd_kubernetes.testing", *arguments], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        with trio.fail_after(20):
            url = bytes(await process.stdout.receive_some()).decode().strip()
        assert "http://proxy:1" in path.read_text()
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            leases = "/apis/coordination.k8s.io/v1/namespaces/feeds/leases"
            assert (await http.get(leases)).status_code == 403
            answer = await http.get(leases, headers={"Authorization": "Bearer t"})
            assert answer.json()["items"] == []
    finally:
        process.kill()
        await process.wait()
