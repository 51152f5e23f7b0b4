"""Services of the machine that tests use, and private ones that they may stop.

A service that is not there skips the test; with PRICEFEEDD_REQUIRE_SERVICES=1 it fails.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio

#: The machine's PostgreSQL; never stopped. Each test has a database of its own in it.
POSTGRES = os.environ.get("PRICEFEEDD_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432")


def away(what: str) -> NoReturn:
    """Skip the test for want of a service, or fail where services are required."""
    if os.environ.get("PRICEFEEDD_REQUIRE_SERVICES") == "1":
        pytest.fail(f"{what}, and services are required")
    pytest.skip(what)


@pytest.fixture(scope="session", name="away")
def _away() -> Callable[[str], NoReturn]:
    """Return what a fixture or a test calls when a service is not there."""
    return away


def _beside(name: str) -> Any:
    """Return a module beside this file: tests are no package."""
    return _loaded(Path(__file__).with_name(f"{name}.py"))


@pytest.fixture(scope="session", name="beside")
def _beside_fixture() -> Callable[[str], Any]:
    """Return a function that returns a module beside this file."""
    return _beside


def _loaded(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def postgres() -> Callable[[str], Any]:
    """Return a function that runs a statement as the machine's PostgreSQL's administrator."""
    import psycopg

    def run(statement: str, database: str = "postgres") -> list[Any]:
        with psycopg.connect(f"{POSTGRES}/{database}", autocommit=True, connect_timeout=5) as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []

    try:
        run("SELECT 1")
    except psycopg.OperationalError as e:
        away(f"no PostgreSQL at {POSTGRES}: {e}")
    return run


@pytest.fixture(scope="module")
def postgres_database(postgres: Callable[[str], Any]) -> Iterator[str]:
    """Return the name of a new database in the machine's PostgreSQL; it is dropped afterwards."""
    name = f"pricefeedd_test_{secrets.token_hex(6)}"
    postgres(f"CREATE DATABASE {name}")
    yield name
    postgres(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres: Callable[..., Any], postgres_database: str) -> Iterator[str]:
    """Return the URL of an empty database in the machine's PostgreSQL."""
    name = postgres_database
    yield f"postgresql+psycopg://{POSTGRES.partition('://')[2]}/{name}"
    postgres(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    postgres("DROP SCHEMA public CASCADE", name)  # to make a database for each test takes ten times as long
    postgres("CREATE SCHEMA public", name)


@pytest.fixture(scope="module")
def postgres_cluster() -> Iterator[Any]:
    """Return a private PostgreSQL (`clusters.Cluster`) that may be stopped; it runs when a test begins."""
    clusters = _beside("clusters")
    try:
        with clusters.cluster() as cluster:
            yield cluster
    except clusters.ClusterAwayError as e:
        away(str(e))


@pytest.fixture
def own_postgres(postgres_cluster: Any) -> Any:
    """Return the private PostgreSQL, started, whatever the test before did to it."""
    if not postgres_cluster.runs:
        postgres_cluster.start()
    return postgres_cluster


#: The machine's RabbitMQ; never stopped. Each test has an exchange and queues of its own in it.
RABBITMQ = os.environ.get("PRICEFEEDD_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672/%2F")


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    """Return the URL of the machine's RabbitMQ."""
    import pika

    parameters = pika.URLParameters(RABBITMQ)
    parameters.socket_timeout = parameters.stack_timeout = 5.0
    try:
        pika.BlockingConnection(parameters).close()
    except (pika.exceptions.AMQPError, OSError) as e:
        away(f"no RabbitMQ at {parameters.host}:{parameters.port}: {e!r}")
    return RABBITMQ


@pytest.fixture(scope="session")
def rabbitmq_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a private RabbitMQ (`brokers.Broker`) that may be stopped; see `own_rabbitmq`."""
    brokers = _beside("brokers")
    if brokers.scripts() is None:
        away("RabbitMQ's server is not installed")
    broker = brokers.Broker(tmp_path_factory.mktemp("rabbitmq"))
    try:
        yield broker
    finally:
        broker.close()


@pytest.fixture
def own_rabbitmq(rabbitmq_node: Any) -> Any:
    """Return the private RabbitMQ, started, whatever the test before did to it."""
    if not rabbitmq_node.running:
        rabbitmq_node.start()
    return rabbitmq_node


@pytest.fixture(scope="session")
def stored() -> Any:
    """Return the module `stored`: stores under test, and what goes into them."""
    return _beside("stored")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a new database; the test runs for each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/pricefeedd.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def database(database_url: str, stored: Any) -> Iterator[Any]:
    """Return a new database with its tables."""
    made = stored.Database(database_url)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def begin_store(nursery: trio.Nursery, stored: Any, tmp_path: Path) -> Callable[..., Awaitable[Any]]:
    """Return a function that begins a store on a URL; what waits lies in the test's folder."""

    async def begin(url: str, **more: Any) -> Any:
        return await stored.begin(nursery, url, tmp_path / "state", **more)

    return begin


@pytest.fixture(scope="session")
def relays() -> Any:
    """Return the module `relays`: an upstream, relays of it, and readers."""
    return _beside("relays")


@pytest.fixture(scope="session")
def link() -> Any:
    """Return the class `Link` of the failover test: a way to a service that can be cut and stalled."""
    return _loaded(Path(__file__).parents[2] / "contrib" / "failover_test" / "link.py").Link
