"""The command line: `kdray --help`. One subject a file; everything heavy is imported by the command that needs it."""

from kdray.cli.commands import app, main

__all__ = ["app", "main"]
