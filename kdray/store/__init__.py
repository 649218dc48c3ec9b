"""Artifacts on disk: ids, records, attempts, locks, and what comes from outside."""

from kdray.store.artifact import Artifact, Attempt, Key
from kdray.store.control import Control
from kdray.store.ids import fingerprint
from kdray.store.locks import Locks
from kdray.store.outer import Outer
from kdray.store.store import Store

__all__ = ["Artifact", "Attempt", "Control", "Key", "Locks", "Outer", "Store", "fingerprint"]
