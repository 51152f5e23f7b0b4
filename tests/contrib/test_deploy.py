"""What is deployed by Compose, Swarm and Kubernetes: linted by others' tools, and what no schema sees by these tests.

Each linter is shown a mistake as well: one that finds none would be none.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONTRIB = ROOT / "contrib"
COMPOSE = CONTRIB / "compose" / "compose.yaml"
DEV = CONTRIB / "compose" / "compose.dev.yaml"
STACK = CONTRIB / "swarm" / "stack.yaml"
KUBERNETES = CONTRIB / "kubernetes"
MANIFESTS = sorted(path for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml")

#: The oldest and the newest release of Kubernetes that the manifests are checked against.
RELEASES = ("1.27", "1.36")

YAMLLINT = (
    "{extends: default, rules: {line-length: {max: 130}, document-start: disable, octal-values: disable}}"
)

Lint = Callable[..., tuple[int, str]]


def test_yaml_is_clean(lint: Lint, tmp_path: Path) -> None:
    files = [COMPOSE, DEV, STACK, CONTRIB / "compose" / "prometheus.yml", *KUBERNETES.glob("*.yaml")]
    assert lint("yamllint", "--strict", "-d", YAMLLINT, *files) == (0, "")
    (tmp_path / "twice.yaml").write_text("services: {}\nservices: {}\n")
    code, said = lint("yamllint", "-d", YAMLLINT, tmp_path / "twice.yaml")
    assert code == 1
    assert "duplication of key" in said


# --- Compose and Swarm ---------------------------------------------------------------------------------------


def read(path: Path) -> dict[str, Any]:
    """Return a file of Compose's."""
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def names(given: Any) -> list[str]:
    """Return what a service refers to, in either of the forms there are."""
    found = []
    for each in given or ():
        name = each if isinstance(each, str) else each["source"]
        found.append(name)
    return found


def references(compose: dict[str, Any]) -> Iterator[str]:
    """Yield what is named and not there, or there and never named: what `docker compose config` says, and more."""
    used: dict[str, set[str]] = {kind: set() for kind in ("networks", "secrets", "configs", "volumes")}
    for service, about in compose["services"].items():
        for kind in ("networks", "secrets", "configs"):
            used[kind] |= set(names(about.get(kind)))
        for volume in about.get("volumes", ()):
            source = volume.split(":")[0]
            if not source.startswith((".", "/")):
                used["volumes"].add(source)
        for other, how in (about.get("depends_on") or {}).items():
            if other not in compose["services"]:
                yield f"{service} depends on {other}, which is not there"
            elif how["condition"] == "service_healthy" and not has_health(other, compose["services"][other]):
                yield f"{service} waits for the health of {other}, which has no check"
    for kind, found in used.items():
        there = set(compose.get(kind) or {})
        yield from (f"{kind}: {name} is not there" for name in sorted(found - there))
        yield from (f"{kind}: {name} is not used" for name in sorted(there - found))


def has_health(name: str, service: dict[str, Any]) -> bool:
    """Return whether a service has a health check; that of pricefeedd is in its image."""
    return name == "pricefeedd" or "healthcheck" in service


def test_compose_files_fit_the_specification(lint: Lint, tmp_path: Path) -> None:
    schema = ("check-jsonschema", "--builtin-schema", "vendor.compose-spec")
    code, said = lint(*schema, COMPOSE, DEV, STACK)
    assert code == 0, said
    assert [list(references(read(path))) for path in (COMPOSE, DEV, STACK)] == [[], [], []]
    broken = []
    for path in (COMPOSE, DEV, STACK):
        for was, now in (
            ("healthcheck:", "healthchek:"),
            ("    image:", "    images:"),
            ("retries:", "retry:"),
        ):
            assert was in path.read_text()
            broken.append(tmp_path / f"{path.stem}-{now.strip(' :')}.yaml")
            broken[-1].write_text(path.read_text().replace(was, now, 1))
    code, said = lint(*schema, *broken)
    assert code == 1
    assert all(f"{path}::" in said for path in broken), said


def test_references_are_followed() -> None:
    compose = read(COMPOSE)
    del (
        compose["networks"]["back"],
        compose["secrets"]["ops-key"],
        compose["services"]["postgres"]["healthcheck"],
    )
    compose["volumes"]["forgotten"] = None
    assert sorted(references(compose)) == [
        "networks: back is not there",
        "pricefeedd waits for the health of postgres, which has no check",
        "secrets: ops-key is not there",
        "volumes: forgotten is not used",
    ]


def test_production_is_confined_and_bounded() -> None:
    for name, service in read(COMPOSE)["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
        assert {"max-size", "max-file"} <= set(service["logging"]["options"]), name
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"]), name
        assert has_health(name, service), name
        assert re.fullmatch(
            r"\$\{PRICEFEEDD_IMAGE:-pricefeedd:latest\}|[\w./-]+:v?\d[\w.-]*", service["image"]
        ), name
        # Only nginx is reached from elsewhere.
        for port in service.get("ports", ()):
            assert name == "nginx" or port.startswith("127.0.0.1:"), name
        for secret in re.findall(r"/run/secrets/([\w-]+)", json.dumps(service)):
            assert secret in service["secrets"], name
    profiles = {name: about.get("profiles") for name, about in read(COMPOSE)["services"].items()}
    assert {name for name, given in profiles.items() if given} == {"nginx", "prometheus", "grafana"}


def test_files_that_are_mounted_are_there() -> None:
    for path in (COMPOSE, STACK):
        compose = read(path)
        mounted = [
            volume.split(":")[0]
            for each in compose["services"].values()
            for volume in each.get("volumes", ())
        ]
        mounted += [config["file"] for config in compose["configs"].values()]
        for name in mounted:
            if name.startswith("."):
                assert (path.parent / name).exists(), name
    for path in (COMPOSE, DEV):
        build = read(path)["services"]["pricefeedd"]["build"]
        assert (path.parent / build["context"] / build["dockerfile"]).is_file()


def test_prometheus_finds_the_daemon_and_the_rules(lint: Lint, tmp_path: Path) -> None:
    text = (CONTRIB / "compose" / "prometheus.yml").read_text()
    original = yaml.safe_load((CONTRIB / "prometheus" / "prometheus.yml").read_text())
    given = yaml.safe_load(text)
    assert [Path(name).name for name in given["rule_files"]] == original["rule_files"]
    assert given["scrape_configs"][0]["job_name"] == original["scrape_configs"][0]["job_name"]
    assert given["scrape_configs"][0]["static_configs"] == [{"targets": ["pricefeedd:8765"]}]
    service = read(COMPOSE)["services"]["prometheus"]
    assert "../prometheus:/etc/prometheus/rules:ro" in service["volumes"]
    path = tmp_path / "prometheus.yml"
    path.write_text(text.replace("/etc/prometheus/rules/", f"{CONTRIB}/prometheus/"))
    code, said = lint("promtool", "check", "config", path)
    assert code == 0, said
    path.write_text(
        text.replace("/etc/prometheus/rules/", f"{CONTRIB}/prometheus/").replace("targets", "target")
    )
    assert lint("promtool", "check", "config", path)[0] != 0


def test_swarm_takes_turns_and_hides_its_secrets() -> None:
    stack = read(STACK)
    daemon = stack["services"]["pricefeedd"]
    assert daemon["deploy"]["replicas"] == 3
    assert daemon["deploy"]["update_config"]["parallelism"] == 1
    assert daemon["deploy"]["update_config"]["order"] == "stop-first"
    for secret in daemon["secrets"]:
        assert secret["mode"] == 0o400
        assert secret["uid"] == "10001"
    assert all(secret == {"external": True} for secret in stack["secrets"].values())


def test_docker_itself_takes_the_stack(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("no docker: its client alone would do")
    broken = tmp_path / "stack.yaml"
    broken.write_text(STACK.read_text().replace("parallelism: 1", "parallelism: one"))
    for path, good in ((STACK, True), (broken, False)):
        done = subprocess.run(
            [docker, "stack", "config", "--compose-file", str(path)],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        if "unknown" in done.stderr.lower() and good:
            pytest.skip(f"this docker has no `stack config`: {done.stderr}")
        assert (done.returncode == 0) is good, done.stderr


# --- Kubernetes ----------------------------------------------------------------------------------------------

#: The part of the PodMonitor's definition that is used: https://prometheus-operator.dev/docs/api-reference/api/
POD_MONITOR = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "spec": {
            "type": "object",
            "required": ["selector", "podMetricsEndpoints"],
            "additionalProperties": False,
            "properties": {
                "selector": {"type": "object"},
                "podMetricsEndpoints": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string"},
                            "interval": {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"},
                        },
                    },
                },
            },
        },
    },
}


@pytest.fixture(scope="module")
def objects() -> dict[tuple[str, str], dict[str, Any]]:
    """Return all objects by kind and name."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for path in MANIFESTS:
        for each in yaml.safe_load_all(path.read_text()):
            key = each["kind"], each["metadata"]["name"]
            assert key not in found
            found[key] = each
    return found


def test_manifests_fit_the_schemas_of_kubernetes(lint: Lint, tmp_path: Path) -> None:
    releases = [argument for release in RELEASES for argument in ("-k", release)]
    known = [path for path in MANIFESTS if path.name != "podmonitor.yaml"]
    code, said = lint("kubernetes-validate", "--strict", *releases, *known)
    assert code == 0, said
    assert said.count(" passed ") == len(RELEASES) * sum(
        len(list(yaml.safe_load_all(p.read_text()))) for p in known
    )
    text = (KUBERNETES / "statefulset.yaml").read_text()
    changes = {
        "readinessProbe:": "readynessProbe:",
        "replicas: 3": 'replicas: "3"',
        "accessModes: [": "accessMode: [",
        "pricefeedd-pods\n  selector:": "pricefeedd-pods\n  selectors:",
    }
    broken = [tmp_path / f"{number}.yaml" for number in range(len(changes))]
    for path, (was, now) in zip(broken, changes.items(), strict=True):
        assert was in text
        path.write_text(text.replace(was, now))
    code, said = lint("kubernetes-validate", "--strict", "-k", RELEASES[-1], *broken)
    assert code != 0
    assert all(f"ERROR {path}" in said for path in broken), said


def test_the_pod_monitor_fits_what_the_operator_defines(
    objects: dict[tuple[str, str], dict[str, Any]],
) -> None:
    monitor = objects["PodMonitor", "pricefeedd"]
    jsonschema.validate(monitor, POD_MONITOR)
    monitor = {**monitor, "spec": {**monitor["spec"], "podMetricsEndpoint": []}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(monitor, POD_MONITOR)


def test_the_parts_fit_together(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    stateful = objects["StatefulSet", "pricefeedd"]["spec"]
    pod, labels = stateful["template"]["spec"], stateful["template"]["metadata"]["labels"]
    container = pod["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    selectors = [
        stateful["selector"]["matchLabels"],
        objects["Service", "pricefeedd"]["spec"]["selector"],
        objects["Service", "pricefeedd-pods"]["spec"]["selector"],
        objects["PodDisruptionBudget", "pricefeedd"]["spec"]["selector"]["matchLabels"],
        objects["PodMonitor", "pricefeedd"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy", "pricefeedd"]["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    assert objects["Service", stateful["serviceName"]]["spec"]["clusterIP"] == "None"
    for name in ("pricefeedd", "pricefeedd-pods"):
        assert objects["Service", name]["spec"]["ports"][0]["targetPort"] in ports
    assert objects["PodMonitor", "pricefeedd"]["spec"]["podMetricsEndpoints"][0]["port"] in ports
    assert {probe["httpGet"]["port"] for key, probe in container.items() if key.endswith("Probe")} <= set(
        ports
    )
    assert objects["NetworkPolicy", "pricefeedd"]["spec"]["ingress"][0]["ports"] == [
        {"protocol": "TCP", "port": ports["http"]}
    ]
    assert ("ServiceAccount", pod["serviceAccountName"]) in objects
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    volumes |= {claim["metadata"]["name"]: claim for claim in stateful["volumeClaimTemplates"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert ("ConfigMap", volumes["config"]["configMap"]["name"]) in objects
    assert ("Secret", volumes["secrets"]["secret"]["secretName"]) in objects
    # A standby is never ready: whatever waited for it would wait for ever.
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert stateful["podManagementPolicy"] == "Parallel"
    assert stateful["updateStrategy"] == {"type": "OnDelete"}


def test_pods_obey_the_restricted_standard(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert (
        objects["Namespace", "pricefeedd"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )
    pod = objects["StatefulSet", "pricefeedd"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["secrets"]["secret"]["defaultMode"] & 0o007 == 0


def test_the_role_is_for_one_lease(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    role = objects["Role", "pricefeedd-leader"]
    named, unnamed = role["rules"]
    assert set(named["verbs"]) == {"get", "update"}
    assert unnamed["verbs"] == ["create"]
    text = objects["ConfigMap", "pricefeedd"]["data"]["pricefeedd.toml"]
    assert [f'lease = "{name}"' in text for name in named["resourceNames"]] == [True]
    binding = objects["RoleBinding", "pricefeedd-leader"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert ("ServiceAccount", binding["subjects"][0]["name"]) in objects


def test_the_network_policy_lets_all_venues_through(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    allowed = {
        port["port"]
        for rule in objects["NetworkPolicy", "pricefeedd"]["spec"]["egress"]
        for port in rule["ports"]
    }
    needed = set()
    for path in (ROOT / "plugins").glob("pricefeedd-*/pricefeedd_*/*.py"):
        needed |= {int(port) for port in re.findall(r"\b(?:wss|https)://[\w.-]+:(\d+)", path.read_text())}
    assert needed >= {8443, 9443}
    assert needed | {443} <= allowed


def test_kustomize_puts_it_together() -> None:
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == [path.name for path in MANIFESTS if not path.name.endswith("example.yaml")]
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return
    done = subprocess.run(
        [kubectl, "kustomize", str(KUBERNETES)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    assert {each["metadata"].get("namespace", "pricefeedd") for each in made} == {"pricefeedd"}
    stateful = next(each for each in made if each["kind"] == "StatefulSet")
    assert re.fullmatch(r"registry\.example\.com/pricefeedd:\d.*", stateful["spec"]["template"]["spec"]["containers"][0]["image"])  # fmt: skip


# --- the configuration in all of them ------------------------------------------------------------------------

SECRETS = {
    "store-url": "postgresql+psycopg://pricefeedd:secret@postgres/pricefeedd",
    "postgres-url": "postgresql+psycopg://pricefeedd:secret@postgres/pricefeedd",
    "rabbitmq-url": "amqp://pricefeedd:secret@rabbitmq/%2F",
    "ops-key": "0123456789abcdef",
}


def deployed(where: str, objects: dict[tuple[str, str], dict[str, Any]]) -> tuple[str, dict[str, str]]:
    """Return the configuration file of a deployment, and what its secrets are named in the container."""
    if where == "kubernetes":
        secret = objects["Secret", "pricefeedd"]
        return objects["ConfigMap", "pricefeedd"]["data"]["pricefeedd.toml"], {
            f"pricefeedd/{name}": name for name in secret["stringData"]
        }
    path = COMPOSE if where == "compose" else STACK
    mounted = read(path)["services"]["pricefeedd"]["secrets"]
    named = [each if isinstance(each, str) else each["target"] for each in mounted]
    return (path.parent / "pricefeedd.toml").read_text(), {name: name for name in named}


@pytest.mark.parametrize("where", ["compose", "swarm", "kubernetes"])
async def test_each_configuration_is_right(
    cli: Any, tmp_path: Path, where: str, objects: dict[tuple[str, str], dict[str, Any]]
) -> None:
    text, secrets = deployed(where, objects)
    for place, name in secrets.items():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(SECRETS[name] + "\n")
        (tmp_path / place).chmod(0o400)
        assert f"/run/secrets/{place}" in text, f"{name} is mounted, and nobody reads it"
    path = cli.config(text.replace("/run/secrets/", f"{tmp_path}/"))
    ended = await cli.run("check", "--config", path)
    assert ended.code == 0, ended.err
    assert ended.out.startswith(f"{path}: ok (2 venues")
