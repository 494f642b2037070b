"""The fault harness: breaks what Siftbell stands on while messages pass through it, and accounts for every one of them."""
