"""Asks the daemon in this container whether it serves: `/health`, which a standby answers with 200 as well.

The URL is the first argument, or PRICEFEEDD_HEALTH_URL. Ends with 0 or 1, as HEALTHCHECK wants.
"""

import http.client
import os
import ssl
import sys
from urllib.parse import urlsplit


def main() -> int:
    """Ask, tell what was wrong, and return the exit code."""
    default = os.environ.get("PRICEFEEDD_HEALTH_URL", "http://127.0.0.1:8765/health")
    url = sys.argv[1] if len(sys.argv) > 1 else default
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 8765
    # No urllib.request: it would ask the proxy of the environment.
    connection = http.client.HTTPConnection(host, port, timeout=4)
    if parts.scheme == "https":
        # With [web.tls] the certificate is made out to another name than this container's own.
        context = ssl._create_unverified_context()  # nothing is read from the answer but that there is one
        connection = http.client.HTTPSConnection(host, port, timeout=4, context=context)
    try:
        connection.request("GET", parts.path or "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as e:
        print(f"{url}: {e}", file=sys.stderr)
        return 1
    if status != 200:
        print(f"{url}: HTTP {status}", file=sys.stderr)
    return int(status != 200)


if __name__ == "__main__":
    sys.exit(main())
