"""Artifacts on disk: ids, records, attempts, locks, and what comes from outside."""

from kdray.store.control import Control
from kdray.store.ids import fingerprint
from kdray.store.locks import Locks
from kdray.store.outer import Outer
from kdray.store.store import Artifact, Attempt, Key, Store

__all__ = ["Artifact", "Attempt", "Control", "Key", "Locks", "Outer", "Store", "fingerprint"]
