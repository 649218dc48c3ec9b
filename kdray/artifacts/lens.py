"""The files of a Lookback Lens, what `lens` leaves: `kdray.lens.classifier` writes and reads the first two,
`kdray.lens.align` the others.

Light, since `kdray check` looks whether they are there.
"""

from __future__ import annotations

WEIGHTS = "lens.safetensors"  # weights [L, H] and the intercept, float64
RECORD = "lens.json"  # what trained it, with sketches of the documents
KEPT_OUT = "kept_out.json"  # annotated responses as tokens, to documents that did not train it
ALIGNED = "aligned.json"  # all of them, while the lens is made
GUIDE = "kdray_guide"  # the entry of a classifier on hidden states that says, as JSON, which layer it is about
