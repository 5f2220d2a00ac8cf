"""Poolgrad as a web service: `create_app` makes it, ``poolgrad serve`` runs it."""

from poolgrad_service.app import create_app
from poolgrad_service.settings import Settings

__all__ = ["Settings", "create_app"]
