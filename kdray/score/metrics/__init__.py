"""One metric a file: `kdray.score.answers` says what a metric is, `Metric` in `kdray.spec.declare` what it declares."""
