"""Resume state of a run: weights, optimiser and history, sealed by a manifest of checksums.

Every rank writes its own files and takes the checksums of its share of all, then rank 0 seals them. A checkpoint
without a valid manifest is no checkpoint: half-written and damaged ones are passed over, and so are those that this
engine cannot read.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import xxhash

from kdray.store import io
from kdray.store.artifact import ATTEMPT
from kdray.train.loop import Loop

MANIFEST, HISTORY = "manifest.json", "history.json"
LOOK = 2.0  # seconds between looks at whether a node is being taken away


class Due:
    """Whether a checkpoint is to be written now: so many minutes after the last one was, at every so many steps, or
    because a node of these ranks is being `taken` away. Then they are to leave it: `leaving`.

    It is rank 0's clock that tells, on every rank. `taken` is asked every few seconds, of all ranks at once.
    """

    def __init__(
        self,
        loop: Loop,
        minutes: float,
        every: int | None,
        taken: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loop, self.seconds, self.every, self.taken, self.clock = loop, 60 * minutes, every, taken, clock
        self.leaving, self._looked = False, -math.inf
        self.written()

    def __call__(self) -> bool:
        """To be called on every rank after a step."""
        now, first = self.clock(), self.loop.ranks.rank == 0
        told = torch.tensor([first and now - self._since >= self.seconds, first and now - self._looked >= LOOK])
        late, look = self.loop.ranks.sum(told.float(), self.loop.device).tolist()
        if look:
            self._looked, self.leaving = now, self.taken() or self.leaving
        return bool(late or self.leaving or (self.every and self.loop.step % self.every == 0))

    def written(self) -> None:
        """One is there: the minutes begin anew, so that however long it took, steps come between."""
        self._since = self.clock()


def save_checkpoint(loop: Loop, folder: Path) -> None:
    """Write the loop's state into `folder`, replacing what dead workers may have left there; the manifest comes last.

    To be called on every rank.
    """
    if loop.ranks.rank == 0:
        io.delete(folder)
        folder.mkdir()
    loop.ranks.wait()
    loop.engine.save(folder)
    if loop.ranks.rank == 0:
        (folder / HISTORY).write_text(json.dumps(loop.history))
    loop.ranks.wait()
    names = loop.ranks.agree(_by_size(folder) if loop.ranks.rank == 0 else None)
    mine = names[loop.ranks.rank :: loop.ranks.world]
    sums = loop.ranks.gather({name: checksum(folder / name) for name in mine})
    if loop.ranks.rank == 0:
        io.put_json(folder / MANIFEST, {"step": loop.step, "layout": loop.engine.layout, "xxh3": sums})
    loop.ranks.wait()


def load_checkpoint(loop: Loop, folder: Path) -> None:
    """Put the loop where it was when the checkpoint was written: with the same ranks, on CPUs bit for bit. On every
    rank.

    On GPUs up to rounding: products and sums there may come in another order from run to run.
    """
    loop.engine.load(folder)
    loop.resume(json.loads((folder / HISTORY).read_text()))


def newest_checkpoint(artifact: Path, layout: str) -> Path | None:
    """The valid checkpoint of this layout with the most steps in any attempt at an artifact."""
    manifests = []
    for path in artifact.glob(f"{ATTEMPT}*/**/{MANIFEST}"):
        manifest = io.read_json(path)
        if manifest is not None and manifest["layout"] == layout:
            manifests.append((manifest["step"], str(path.parent), manifest["xxh3"]))
    for _, folder, sums in sorted(manifests, reverse=True):
        files = {name: Path(folder) / name for name in sums}
        if all(file.is_file() and checksum(file) == sums[name] for name, file in files.items()):
            return Path(folder)
    return None


def _by_size(folder: Path) -> list[str]:
    """The files in a folder, the largest first: dealt out in turn they are about as many bytes for every rank."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [str(path.relative_to(folder)) for path in sorted(files, key=lambda path: -path.stat().st_size)]


def checksum(path: Path) -> str:
    """XXH3, 128 bits: it need not withstand an attacker, and is far faster than SHA-256 on gigabytes of state."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
