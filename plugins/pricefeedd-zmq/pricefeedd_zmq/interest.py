"""What subscribers asked for: prefixes of topics."""

from __future__ import annotations


class Interest:
    """The subscriptions at an XPUB socket, as its frames tell them.

    The socket must be set to XPUB_VERBOSE: it tells of each subscription, and of the end only when the last peer left.
    (XPUB_VERBOSER tells each end as well, but a peer that subscribed twice ends once, and counts would drift.)
    """

    def __init__(self) -> None:
        self._prefixes: set[bytes] = set()
        # How many of the prefixes have each length: a topic is looked up once for each length, however many they are.
        self._lengths: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._prefixes)

    def take(self, frame: bytes) -> bool:
        """Note what a frame of the socket tells; return whether other topics are wanted now than before.

        A frame that is neither a subscription nor the end of one is passed over.
        """
        kind, prefix = frame[:1], frame[1:]
        length = len(prefix)
        if kind == b"\x01" and prefix not in self._prefixes:
            self._prefixes.add(prefix)
            self._lengths[length] = self._lengths.get(length, 0) + 1
            return True
        if kind == b"\x00" and prefix in self._prefixes:
            self._prefixes.remove(prefix)
            self._lengths[length] -= 1
            if not self._lengths[length]:
                del self._lengths[length]
            return True
        return False

    def wants(self, topic: bytes) -> bool:
        """Return whether anybody subscribed to the topic."""
        prefixes = self._prefixes
        return any(topic[:length] in prefixes for length in self._lengths if length <= len(topic))
