"""Resume state of a run: weights, optimiser and history, sealed by a manifest of checksums; and who writes that, and
what is exported.

Every rank writes its own files and takes the checksums of its share of all, then rank 0 seals them. A checkpoint
without a valid manifest is no checkpoint: half-written and damaged ones are passed over, and so are those that this
engine cannot read.

On GPUs training goes on meanwhile: the state is copied to main memory, and a thread of every rank does the rest. On
CPUs, which the copy and the thread would only take from training, it waits. One thing is written at a time, in the
order of steps: a checkpoint is begun once the exports of all steps up to its own are whole, so that what goes on from
it misses none.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
import xxhash
from torch import Tensor
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from kdray.store import io
from kdray.store.done import ATTEMPT
from kdray.train.engines import Engine, Ranks
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
        """One is there, or copied: the minutes begin anew, so that however long it took, steps come between."""
        self._since = self.clock()


class Writer:
    """Writes a loop's checkpoints and exports, one at a time: while the loop takes steps if `beside`, which costs main
    memory a copy of each rank's state and, where an engine gathers them, of the weights that rank 0 exports.

    All methods but `check` are to be called on every rank.

    What goes wrong in a thread is raised by the next call of any method.
    """

    def __init__(self, loop: Loop, *, beside: bool) -> None:
        self.loop, self.beside = loop, beside
        self._writing: Future[Path | None] | None = None  # of an export None

    def write(self, folder: Path) -> list[Path]:
        """Write the loop's state as it is now into `folder`, replacing what dead workers may have left there, once all
        that was to be written before is there. Returns the checkpoints that have been sealed since the last call.
        """
        sealed, engine, history = self.finish(), self.loop.engine, list(self.loop.history)
        if not self.beside:
            return [*sealed, _write(engine, engine.state(), folder, history, self.loop.ranks)]
        copied = self._copy(engine.state())
        self._writing = self._thread.submit(_write, engine, copied, folder, history, self._ranks)
        return sealed

    def export(self, prepare: Callable[[dict[str, Tensor]], Callable[[], None]]) -> list[Path]:
        """Have rank 0 keep the weights as they are now, once all that was to be written before is there: it `prepare`s
        them at once, and then does what that returns. Returns the checkpoints that have been sealed since the last
        call.
        """
        sealed, loop = self.finish(), self.loop
        weights = loop.engine.weights()
        if self.beside:  # what lies elsewhere was gathered there, and is a copy already
            weights |= self._copy({name: own for name, own in weights.items() if own.device == loop.device})
        if loop.ranks.rank:
            return sealed
        keep = prepare(weights)
        if self.beside:
            self._writing = self._thread.submit(keep)
        else:
            keep()
        return sealed

    def finish(self) -> list[Path]:
        """Wait until nothing is being written; returns the checkpoints that have been sealed since the last call."""
        writing, self._writing = self._writing, None
        sealed = writing.result() if writing else None
        return [sealed] if sealed else []

    def check(self) -> None:
        """Raise what went wrong meanwhile, if anything did."""
        if self._writing and self._writing.done():
            self._writing.result()

    @cached_property
    def _ranks(self) -> Ranks:
        return self.loop.ranks.apart()

    def _copy(self, state: dict[str, Any]) -> dict[str, Any]:
        """A copy in main memory, until the next one of the same tensors is made: it goes to the same place."""
        return cast(dict[str, Any], self._stager.stage(state))

    @cached_property
    def _stager(self) -> DefaultStager:
        """It keeps a tensor's place in main memory for the next copy: to pin one takes longer than to fill it."""
        gpu = self.loop.device.type == "cuda"
        return DefaultStager(
            StagingOptions(
                use_pinned_memory=gpu, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=gpu
            )
        )

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        """On the loop's GPU: on any other, a new thread's being the first, it would take memory."""
        if self.loop.device.type == "cuda":
            return ThreadPoolExecutor(1, "checkpoint", torch.cuda.set_device, (self.loop.device,))
        return ThreadPoolExecutor(1, "checkpoint")


def save_checkpoint(loop: Loop, folder: Path) -> None:
    """Write the loop's state into `folder`, and wait for it. To be called on every rank."""
    Writer(loop, beside=False).write(folder)


def _write(engine: Engine, state: dict[str, Any], folder: Path, history: list[dict[str, float]], ranks: Ranks) -> Path:
    """Write a state of all ranks after the steps of `history`, and seal it."""
    if ranks.rank == 0:
        io.delete(folder)
        folder.mkdir()
    ranks.wait()
    engine.write(state, folder, ranks)
    if ranks.rank == 0:
        (folder / HISTORY).write_text(json.dumps(history))
    ranks.wait()
    names = ranks.agree(_by_size(folder) if ranks.rank == 0 else None)
    mine = names[ranks.rank :: ranks.world]
    sums = ranks.gather({name: checksum(folder / name) for name in mine})
    if ranks.rank == 0:
        io.put_json(folder / MANIFEST, {"step": len(history), "layout": engine.layout, "xxh3": sums})
    ranks.wait()
    return folder


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
