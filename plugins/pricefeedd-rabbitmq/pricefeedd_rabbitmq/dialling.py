"""How the broker is reached, and what it means when a connection ends."""

from __future__ import annotations

import ssl

import attrs
import pika  # type: ignore[import-untyped]  # pika brings no types
from pika.adapters.utils.connection_workflow import (  # type: ignore[import-untyped]  # pika brings no types
    AMQPConnectionWorkflowFailed,
    AMQPConnectorException,
    AMQPConnectorPhaseErrorBase,
)
from pika.exceptions import (  # type: ignore[import-untyped]  # pika brings no types
    AMQPConnectionError,
    AuthenticationError,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from pricefeedd_rabbitmq.settings import RabbitSettings

#: Replies of the broker by which it refuses us, and which the next attempt will not change.
_REFUSALS = {403: "ACCESS_REFUSED", 530: "NOT_ALLOWED"}


@attrs.frozen
class Ending:
    """Why a connection ended.

    Attributes:
        refused: The broker knows us and does not want us; the next attempt will hardly fare better.
    """

    reason: str
    refused: bool = False


def parameters(settings: RabbitSettings) -> pika.URLParameters:
    """Return what pika needs to connect.

    Raises:
        OSError: A file of TLS cannot be read.
    """
    found = pika.URLParameters(settings.url)
    found.heartbeat = settings.heartbeat_s
    found.connection_attempts = 1
    found.socket_timeout = found.stack_timeout = settings.connect_timeout_s
    found.client_properties = {"connection_name": "pricefeedd", "product": "pricefeedd"}
    if settings.url.startswith("amqps://"):
        context = ssl.create_default_context(cafile=settings.tls_ca_file or None)
        if settings.tls_cert_file:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
        found.ssl_options = pika.SSLOptions(context, found.host)
    return found


def ending(error: BaseException | str) -> Ending:
    """Return what an error of pika means."""
    while (inner := _within(error)) is not None:
        error = inner
    if isinstance(error, str):
        return Ending(error)
    if isinstance(error, ConnectionClosedByBroker):
        code = error.reply_code
        return Ending(f"the broker says {error.reply_text}", refused=code in _REFUSALS)
    if isinstance(error, AuthenticationError | ProbableAuthenticationError):
        return Ending("the broker refuses user name and password", refused=True)
    if isinstance(error, ProbableAccessDeniedError):
        return Ending("the broker refuses access to the virtual host; does it exist?", refused=True)
    if isinstance(error, AMQPConnectionError | AMQPConnectorException | OSError):
        return Ending(said(error))
    return Ending(f"{type(error).__name__}: {error}")


def _within(error: BaseException | str) -> BaseException | None:
    """Return the error that an error of pika wraps; None if it wraps none."""
    if isinstance(error, AMQPConnectionWorkflowFailed):
        found = error.exceptions[-1]
    elif isinstance(error, AMQPConnectorPhaseErrorBase):
        found = error.exception
    elif isinstance(error, AMQPConnectionError) and error.args:
        found = error.args[0]
    else:
        found = None
    return found if isinstance(found, BaseException) else None


def said(error: BaseException) -> str:
    text = str(error) or repr(error)
    return text if isinstance(error, OSError) else f"{type(error).__name__}: {text}"
