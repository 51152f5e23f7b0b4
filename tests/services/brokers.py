"""A RabbitMQ of one's own: stopped, killed and started again without harm to anybody else's.

    broker = Broker(folder)
    broker.start()            # returns when it takes connections; some 5 s
    broker.kill()             # kill -9
    broker.start()            # the same node, the same port, what was durable is there again
    broker.close()

All calls block; a test calls those that take long by `trio.to_thread.run_sync`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pika
import pika.exceptions
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pricefeedd.testing.ports import free_port

#: How long a start may take on a busy machine.
START_S = 90.0

#: Where distributions keep the scripts that a packaged `rabbitmq-server` wraps: those want a user of their own.
_SCRIPTS = ("/usr/lib/rabbitmq/lib", "/opt/rabbitmq/lib", "/usr/local/lib/rabbitmq/lib")


def scripts() -> Path | None:
    """Return the folder of the server's own scripts; None if RabbitMQ is not installed."""
    for place in _SCRIPTS:
        found = sorted(Path(place).glob("rabbitmq_server-*/sbin"))
        if found:
            return found[-1]
    plain = shutil.which("rabbitmq-server")
    return None if plain is None else Path(plain).resolve().parent


class Broker:
    """One private node, with its own data, ports, cookie and port mapper.

    Attributes:
        port: Of AMQP; the same over restarts.
        tls_port: Of AMQP over TLS.
        authority: The certificate file that vouches for the node.
        url: What a client connects to.
        log: What the node says.
    """

    def __init__(self, folder: Path, *, config: str = "") -> None:
        """Prepare a node that keeps everything in the folder.

        Args:
            config: Lines for its `rabbitmq.conf`.
        """
        found = scripts()
        assert found is not None, "look at `scripts()` first"
        self.port = free_port()
        self.tls_port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"
        self.log = folder / "node.log"
        self._scripts = found
        self._folder = folder
        self._node: subprocess.Popen[bytes] | None = None
        self._mapper: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.authority, certificate, key = _certificates(folder)
        cookie = folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (folder / "enabled_plugins").write_text("[].")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
            f"listeners.ssl.default = 127.0.0.1:{self.tls_port}\n"
            f"ssl_options.cacertfile = {self.authority}\nssl_options.certfile = {certificate}\n"
            f"ssl_options.keyfile = {key}\nssl_options.verify = verify_none\n"
            "disk_free_limit.absolute = 1MB\nlog.console = false\nlog.file.level = warning\n" + config
        )
        mapper_port = free_port()
        self._mapper_port = mapper_port
        self._name = f"pricefeedd-{secrets.token_hex(4)}@localhost"
        self._environ = {
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
            # The script then becomes the node itself, so that its pid is the node's.
            "RUNNING_UNDER_SYSTEMD": "1",
        }

    @property
    def running(self) -> bool:
        """Whether the node's process is there."""
        return self._node is not None and self._node.poll() is None

    def start(self) -> None:
        """Start the node, and return when it takes connections."""
        assert not self.running
        if self._mapper is None or self._mapper.poll() is not None:
            # Were it left to the node it would stay behind.
            epmd = shutil.which("epmd") or "epmd"
            self._mapper = subprocess.Popen(
                [epmd, "-port", str(self._mapper_port), "-address", "127.0.0.1"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        with self.log.open("ab") as log:
            self._node = subprocess.Popen(
                [str(self._scripts / "rabbitmq-server")],
                env=self._environ,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait()

    def _wait(self) -> None:
        assert self._node is not None
        deadline = time.monotonic() + START_S
        pause = 0.1
        while True:
            try:
                self.connect().close()
            except (pika.exceptions.AMQPError, OSError) as e:
                if self._node.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the broker did not start ({e!r}):\n{self.log.read_text()}") from e
            else:
                return
            with suppress(subprocess.TimeoutExpired):
                self._node.wait(pause)

    def connect(self) -> pika.BlockingConnection:
        """Return a connection of pika's plainest kind."""
        parameters = pika.URLParameters(self.url)
        parameters.socket_timeout = parameters.stack_timeout = 5.0
        return pika.BlockingConnection(parameters)

    def stop(self) -> None:
        """Stop the node in good order; what is durable outlives it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the node with -9."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        node = self._node
        if node is None or node.poll() is not None:
            return
        node.send_signal(number)
        try:
            node.wait(30)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` against the node, and return what it says."""
        ended = subprocess.run(
            [str(self._scripts / "rabbitmqctl"), "-q", "-n", self._name, *arguments],
            env=self._environ,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if ended.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)}: {ended.stdout}{ended.stderr}")
        return ended.stdout

    def close(self) -> None:
        """End everything that was begun."""
        self.kill()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()


def _certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Write an authority of our own, and a certificate for `localhost`; return those and the key's file."""
    now = datetime.now(UTC)

    def make(
        subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey
    ) -> bytes:
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (subject, issuer)]
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[0])
            .issuer_name(names[1])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=subject == issuer, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
        )
        return builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    files = folder / "authority.pem", folder / "node.pem", folder / "node.key"
    files[0].write_bytes(make("tests", "tests", authority, authority))
    files[1].write_bytes(make("localhost", "tests", own, authority))
    files[2].write_bytes(
        own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files
