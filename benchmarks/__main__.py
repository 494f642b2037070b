"""Runs the benchmarks: `python -m benchmarks --help`, or `make bench`."""

from __future__ import annotations

import sys

from benchmarks.command import main

sys.exit(main())
