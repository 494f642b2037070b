"""The benchmarks: Siftbell against its yardsticks, side by side in one run. `python -m benchmarks --help`."""
