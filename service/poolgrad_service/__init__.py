"""Poolgrad as a web service: `create_app` makes it, ``poolgrad serve`` runs it.

`poolgrad_service.client` is how to call one.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poolgrad_service.app import create_app
    from poolgrad_service.settings import Settings

__all__ = ["Settings", "create_app"]


def __getattr__(name: str) -> Any:
    # Late, since the client and the command do without what the service needs.
    if name == "create_app":
        from poolgrad_service.app import create_app

        return create_app
    if name == "Settings":
        from poolgrad_service.settings import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
