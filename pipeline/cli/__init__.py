"""The command line: one module per group of verbs."""

from pipeline.cli.app import main

__all__ = ["main"]
