"""The grid file: its schema, its references and its expansion to points. Imports nothing heavy."""

from kdray.spec.errors import InputError
from kdray.spec.grid import Grid
from kdray.spec.load import load_grid
from kdray.spec.points import Point

__all__ = ["Grid", "InputError", "Point", "load_grid"]
