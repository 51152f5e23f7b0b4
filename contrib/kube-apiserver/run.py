"""Run a real kube-apiserver with etcd and RBAC on free local ports, and what is to be played against it.

    contrib/kube-apiserver/build FOLDER
    uv run contrib/kube-apiserver/run.py FOLDER                       # the contract and the elections
    uv run contrib/kube-apiserver/run.py FOLDER -- sleep 3600         # anything else

The command finds PRICEFEEDD_KUBE_APISERVER, a kubeconfig with the contexts `admin`, `elector` (allowed what the README
of pricefeedd-kubernetes allows) and `stranger` (allowed nothing), and PRICEFEEDD_KUBE_APISERVER_PID.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import yaml

from pricefeedd.testing.ports import free_port

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "plugins" / "pricefeedd-kubernetes"
START_S = 120.0


def manifests() -> list[dict[str, Any]]:
    """Return the Role and the RoleBinding of the plugin's README, which is thereby tried."""
    text = (PLUGIN / "README.md").read_text()
    block = next(part.split("```")[0] for part in text.split("```yaml\n")[1:] if "kind: Role\n" in part)
    return [found for found in yaml.safe_load_all(block) if found]


def begin(stack: ExitStack, command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Begin a process that is killed at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=log.parent
        )

    def end() -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    stack.callback(end)
    return process


def wait(what: str, ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until something is ready, or tell why it does not come."""
    began = time.monotonic()
    while True:
        try:
            if ready():
                print(f"{what} is ready after {time.monotonic() - began:.1f} s", flush=True)
                return
        except httpx.HTTPError:
            pass
        if process.poll() is not None or time.monotonic() > began + START_S:
            raise SystemExit(f"{what} did not start:\n{log.read_text()[-4000:]}")
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue


def kubeconfig(server: str, authority: Path, tokens: dict[str, str]) -> str:
    """Return a kubeconfig with a context for each user."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "elector",
            "clusters": [
                {"name": "local", "cluster": {"server": server, "certificate-authority": str(authority)}}
            ],
            "users": [{"name": user, "user": {"token": token}} for user, token in tokens.items()],
            "contexts": [
                {"name": user, "context": {"cluster": "local", "user": user, "namespace": "default"}}
                for user in tokens
            ],
        }
    )


def start(stack: ExitStack, binaries: Path, folder: Path) -> tuple[Path, int]:
    """Start etcd and the API server; return the kubeconfig and the server's process id."""
    client, peer, secure = free_port(), free_port(), free_port()
    log = folder / "etcd.log"
    etcd = begin(
        stack,
        [
            str(binaries / "etcd"),
            f"--data-dir={folder}/etcd",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        ],
        log,
    )
    wait("etcd", lambda: httpx.get(f"http://127.0.0.1:{client}/health").status_code == 200, etcd, log)

    tokens = {user: secrets.token_hex(16) for user in ("elector", "stranger", "admin")}
    known = folder / "tokens.csv"
    known.touch(mode=0o600)
    known.write_text(
        "".join(
            f"{token},{user},{user}" + (',"system:masters"\n' if user == "admin" else "\n")
            for user, token in tokens.items()
        )
    )
    key = folder / "service-accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    log = folder / "kube-apiserver.log"
    server = begin(
        stack,
        [
            str(binaries / "kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{client}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={secure}",
            f"--cert-dir={folder}/certificates",
            f"--token-auth-file={known}",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24",
        ],
        log,
    )
    authority = folder / "certificates" / "apiserver.crt"  # which it makes for itself
    url = f"https://127.0.0.1:{secure}"
    admin = {"Authorization": f"Bearer {tokens['admin']}"}

    def ready() -> bool:
        if not authority.exists():
            return False
        return httpx.get(f"{url}/readyz", headers=admin, verify=tls(authority)).status_code == 200

    wait("kube-apiserver", ready, server, log)
    with httpx.Client(base_url=url, headers=admin, verify=tls(authority)) as http:
        for manifest in manifests():
            if manifest["kind"] == "RoleBinding":  # for our user instead of a service account
                manifest["subjects"] = [{"kind": "User", "name": "elector"}]
            manifest["metadata"]["namespace"] = "default"
            for rule in manifest.get("rules", ()):
                rule.pop("resourceNames", None)  # each test has a Lease of its own
            many = {"Role": "roles", "RoleBinding": "rolebindings"}.get(manifest["kind"])
            if many is None:
                continue
            path = f"/apis/{manifest['apiVersion']}/namespaces/default/{many}"
            answer = http.post(path, json=manifest)
            if answer.status_code != 201:
                raise SystemExit(f"{manifest['kind']} of the README: {answer.text}")
    path = folder / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(kubeconfig(url, authority, tokens))
    return path, server.pid


def tls(authority: Path) -> Any:
    """Return how the server is verified."""
    import ssl

    return ssl.create_default_context(cafile=str(authority))


def main() -> None:
    """Run the command, and end with its code."""
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    binaries = Path(sys.argv[1]).resolve() / "bin"
    for name in ("etcd", "kube-apiserver"):
        if not (binaries / name).exists():
            raise SystemExit(f"{binaries / name} is not there; run contrib/kube-apiserver/build first")
    command = sys.argv[3:] if sys.argv[2:3] == ["--"] else []
    tests = PLUGIN / "tests"
    command = command or [
        *(sys.executable, "-m", "pytest", "-v", "-s", "-p", "no:cacheprovider"),
        *(str(tests / "test_contract.py"), str(tests / "test_election.py")),
    ]
    folder = Path(tempfile.mkdtemp(prefix="pricefeedd-kube-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        path, pid = start(stack, binaries, folder)
        environ = {
            **os.environ,
            "PRICEFEEDD_KUBE_APISERVER": str(path),
            "PRICEFEEDD_KUBE_APISERVER_PID": str(pid),
        }
        code = subprocess.run(command, env=environ, cwd=ROOT, check=False).returncode
    raise SystemExit(code)


if __name__ == "__main__":
    main()
