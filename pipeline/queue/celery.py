"""The app for the ordinary Celery command: `celery -A pipeline.queue worker`, `inspect`, `events`; set up by the environment."""

from __future__ import annotations

from pipeline.queue.worker import worker_app
from pipeline.settings import Settings

app = worker_app(Settings())
