"""Celery at one edge: the app, its tasks, the brokers and their settings."""
