"""`pricefeedd zmq-proxy`."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import click
import structlog
import trio

from pricefeedd.errors import ServiceAwayError
from pricefeedd_zmq.proxy import Proxy, ProxyOptions
from pricefeedd_zmq.settings import PUBLISH, PUSH, check_address, check_curve_key
from pricefeedd_zmq.sockets import AddressError

log = structlog.get_logger("pricefeedd.zmq")


def _addresses(context: click.Context, _: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            check_address(value)
        except ValueError as e:
            raise click.BadParameter(str(e)) from e
    return values


def _host_port(context: click.Context, _: click.Parameter, value: str) -> str:
    host, colon, port = value.rpartition(":")
    if value and not (colon and host and port.isdecimal() and int(port) <= 65535):
        raise click.BadParameter(f'expected host:port, such as 127.0.0.1:8000, or ""; found {value!r}')
    return value


def _key(context: click.Context, _: click.Parameter, path: Path | None) -> str:
    if path is None:
        return ""
    if path.stat().st_mode & 0o004:
        raise click.BadParameter(f"everybody may read {path}; chmod 600 the file")
    try:
        key = path.read_text(encoding="ascii").strip()
        check_curve_key(key, str(path))
    except (OSError, ValueError) as e:
        # A decoder's own words would hold the content.
        text = f"{path} is no text" if isinstance(e, UnicodeDecodeError) else str(e)
        raise click.BadParameter(text) from None
    return key


@click.command("zmq-proxy")
@click.option(
    "--pull",
    multiple=True,
    default=[PUSH],
    show_default=True,
    callback=_addresses,
    help="Publishers push here.",
)
@click.option(
    "--pub",
    multiple=True,
    default=[PUBLISH],
    show_default=True,
    callback=_addresses,
    help="Subscribers read here.",
)
@click.option(
    "--http",
    default="127.0.0.1:8000",
    show_default=True,
    callback=_host_port,
    help='HOST:PORT of /health, /ready, /status and /metrics; "" for none.',
)
@click.option(
    "--high-water-mark",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Most messages that wait for one subscriber.",
)
@click.option(
    "--max-message-bytes",
    type=click.IntRange(1024),
    default=1_048_576,
    show_default=True,
    help="A larger message is dropped and counted.",
)
@click.option(
    "--linger-ms",
    type=click.IntRange(0, 60_000),
    default=500,
    show_default=True,
    help="How long messages on their way are waited for at the end.",
)
@click.option("--ipv6", is_flag=True, help="Addresses may be of IPv6.")
@click.option(
    "--curve-secret-key-file",
    "secret_key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    callback=_key,
    help="Encrypt both sides by CURVE, with the secret key in this file.",
)
def zmq_proxy(
    pull: tuple[str, ...],
    pub: tuple[str, ...],
    http: str,
    high_water_mark: int,
    max_message_bytes: int,
    linger_ms: int,
    ipv6: bool,
    secret_key: str,
) -> None:
    """Take what several publishers push, and publish it at one address.

    Publishers are daemons whose [sinks.zmq] has mode = "push". Runs until SIGTERM or Ctrl-C.
    """
    options = ProxyOptions(
        pull=pull,
        pub=pub,
        high_water_mark=high_water_mark,
        max_message_bytes=max_message_bytes,
        linger_ms=linger_ms,
        ipv6=ipv6,
        secret_key=secret_key,
    )
    for address in (*pull, *pub):
        try:
            check_address(address, ipv6=ipv6)
        except ValueError as e:
            raise click.UsageError(str(e).replace("set ipv6 = true", "add --ipv6")) from e
    trio.run(_run, options, http)


async def _run(options: ProxyOptions, http: str) -> None:
    from pricefeedd_zmq import proxy_web

    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        try:
            sock = proxy_web.listen(http) if http else None
            proxy = Proxy(options)
        except AddressError as e:
            raise ServiceAwayError(f"{e}; is another proxy running already?") from e
        where = "" if sock is None else _name(sock)
        async with trio.open_nursery() as nursery:
            if sock is not None:
                nursery.start_soon(proxy_web.serve, sock, proxy, stop)
            nursery.start_soon(proxy.run, stop)
            log.info("proxy is serving", pull=proxy.pull, pub=proxy.pub, http=where)
            async for number in signals:
                log.info("signal", signal=signal.Signals(number).name)
                stop.set()
                break
    counts = proxy.counts
    log.info("proxy has stopped", received=counts.received, forwarded=counts.forwarded, dropped=counts.bad)


def _name(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
