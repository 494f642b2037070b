"""`python -m pipeline.cli` is the command `siftbell`, for processes that are to run under the same interpreter."""

from pipeline.cli import main

main()
