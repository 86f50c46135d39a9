"""The REST surface: a file per noun, and `create_app` for all of them."""

from .app import create_app

__all__ = ["create_app"]
