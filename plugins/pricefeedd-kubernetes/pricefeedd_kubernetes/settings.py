"""What an operator can set of the elector. httpx is not imported here: the configuration is read early."""

from __future__ import annotations

import re
from typing import Any

import attrs

#: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def _lease(_: Any, __: Any, value: str) -> None:
    if len(value) > 253 or not _SUBDOMAIN.fullmatch(value):
        raise ValueError(f"expected a name of lower-case letters, digits, - and .; found {value!r}")


def _namespace(_: Any, __: Any, value: str) -> None:
    if value and (len(value) > 63 or not _LABEL.fullmatch(value)):
        raise ValueError(
            f'expected at most 63 lower-case letters, digits and -, or "" for our own; found {value!r}'
        )


def _identity(_: Any, __: Any, value: str) -> None:
    if len(value) > 200 or not value.isprintable():
        raise ValueError(f"expected at most 200 printable characters; found {value!r}")


def _between(least: float, most: float) -> Any:
    def check(_: Any, __: Any, value: float) -> None:
        if not least <= value <= most:
            raise ValueError(f"expected {least:g} to {most:g}, found {value:g}")

    return check


@attrs.frozen(kw_only=True)
class KubernetesSettings:
    """The keys of `[leader.kubernetes]`.

    Attributes:
        lease: Name of the Lease. Daemons that share one are candidates for one lead.
        namespace: Where the Lease is; by default that of the pod, or of the kubeconfig's context.
        identity: Begins our name in the Lease, to which a part is added that no other daemon has; by default that name
            is the daemon's own, of host, process and start.
        lease_s: A leader of whom nothing is heard for so long is replaced.
        renew_deadline_s: A leader that could not renew the Lease for so long leads no longer.
        retry_s: How often a leader renews the Lease, and the others look at it.
        kubeconfig: The file that tells where the cluster is and who we are. By default the pod's service account,
            else the file or files in $KUBECONFIG, else ~/.kube/config.
        context: Of the kubeconfig; its current one by default.
    """

    lease: str = attrs.field(default="pricefeedd", validator=_lease)
    namespace: str = attrs.field(default="", validator=_namespace)
    identity: str = attrs.field(default="", validator=_identity)
    lease_s: float = attrs.field(default=3.0, validator=_between(1, 3600))
    renew_deadline_s: float = attrs.field(default=2.0, validator=_between(0.2, 3600))
    retry_s: float = attrs.field(default=0.4, validator=_between(0.05, 600))
    kubeconfig: str = ""
    context: str = ""

    def __attrs_post_init__(self) -> None:
        """Check what depends on each other.

        Raises:
            ValueError: It does not fit.
        """
        if not self.lease_s > self.renew_deadline_s:
            # In between lies all that we and another daemon may disagree on about how long a second is.
            raise ValueError(
                f"lease_s ({self.lease_s:g}) must be greater than renew_deadline_s ({self.renew_deadline_s:g}): "
                "a leader must have stopped before another one begins"
            )
        if not self.renew_deadline_s > self.retry_s:
            raise ValueError(
                f"renew_deadline_s ({self.renew_deadline_s:g}) must be greater than retry_s ({self.retry_s:g}): "
                "a leader must have time to renew"
            )
