"""Models: loading by reference, cutting layers, the output head, and generation."""

from kdray.models.load import load, load_folder

__all__ = ["load", "load_folder"]
