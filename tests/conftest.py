"""Fixtures for all rings of tests."""

from __future__ import annotations

pytest_plugins = ["tests.plugins.stack"]
