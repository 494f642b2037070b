"""The engine: one message's journey from a producer through the filters to the consumers, without broker, web or plugin names."""
