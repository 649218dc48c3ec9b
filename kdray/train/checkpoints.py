"""Resume state of a run: weights, optimiser, RNG, position and history, sealed by a manifest of checksums.

A checkpoint without a valid manifest is no checkpoint: half-written and damaged ones are passed over.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import xxhash
from safetensors.torch import load_model, save_model

from kdray.store import io
from kdray.train.loop import Loop

MANIFEST, WEIGHTS, STATE, HISTORY = "manifest.json", "weights.safetensors", "state.pt", "history.json"


def save_checkpoint(loop: Loop, folder: Path) -> None:
    """Write the loop's state into `folder`, replacing what a dead worker may have left there; the manifest comes last."""
    io.delete(folder)
    folder.mkdir()
    save_model(loop.model, str(folder / WEIGHTS))
    torch.save(loop.state_dict(), folder / STATE)
    (folder / HISTORY).write_text(json.dumps(loop.history))
    sums = {name: _checksum(folder / name) for name in (WEIGHTS, STATE, HISTORY)}
    io.put_json(folder / MANIFEST, {"step": loop.step, "xxh3": sums})


def load_checkpoint(loop: Loop, folder: Path) -> None:
    """Put the loop where it was when the checkpoint was written, bit for bit."""
    load_model(loop.model, folder / WEIGHTS)
    state = torch.load(folder / STATE, weights_only=True, map_location=loop.device)
    state["rng"] = state["rng"].cpu()
    loop.load_state_dict(state, json.loads((folder / HISTORY).read_text()))


def newest_checkpoint(artifact: Path) -> Path | None:
    """The valid checkpoint with the most steps in any attempt at an artifact."""
    manifests = []
    for path in artifact.glob(f"attempt-*/**/{MANIFEST}"):
        manifest = io.read_json(path)
        if manifest is not None:
            manifests.append((manifest["step"], str(path.parent), manifest["xxh3"]))
    for _, folder, sums in sorted(manifests, reverse=True):
        files = {name: Path(folder) / name for name in sums}
        if all(file.is_file() and _checksum(file) == sums[name] for name, file in files.items()):
            return Path(folder)
    return None


def _checksum(path: Path) -> str:
    """XXH3, 128 bits: it need not withstand an attacker, and is far faster than SHA-256 on gigabytes of state."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
