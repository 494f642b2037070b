"""YAML to specs: pipelines with a place for every error, and the JSON Schema of the format."""
