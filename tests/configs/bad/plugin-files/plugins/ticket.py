"""A plugin that cannot be imported."""

raise RuntimeError("the ticket system's library is too old")
