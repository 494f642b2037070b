"""Puts a runner together from the process's settings: the pipelines, the store, the memory and the queue."""

from __future__ import annotations

from pipeline.engine.batch import Queue
from pipeline.engine.pipeline import Pipelines
from pipeline.engine.runner import Runner
from pipeline.memory import open_memory
from pipeline.settings import Settings
from pipeline.spec.loader import load
from pipeline.spec.model import Configuration
from pipeline.store import Store


def load_configuration(settings: Settings) -> Configuration:
    """Load the pipelines that the settings name; raises `ConfigError` with every problem there is."""
    return load(settings.config, secrets=settings.secrets, networks=settings.networks)


def make_runner(settings: Settings, configuration: Configuration, queue: Queue) -> Runner:
    """Make a runner on the settings' store and memory."""
    store = Store(settings.store_url)
    return Runner(Pipelines(configuration), store, open_memory(settings.memory_url), queue)
