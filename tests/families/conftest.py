"""Fixture: a small text for the trainer."""

from tests.experiments.conftest import text  # noqa: F401
