"""Runs the fault harness: `python tests/faults --help`."""

from __future__ import annotations

import sys

from harness.command import main

sys.exit(main())
