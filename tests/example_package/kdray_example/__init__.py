"""A loss and a metric for kdray."""
