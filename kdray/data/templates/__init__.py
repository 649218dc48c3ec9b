"""One template a file: see `kdray.spec.components` for how they are found."""
