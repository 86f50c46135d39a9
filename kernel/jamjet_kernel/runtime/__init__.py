"""The shell: makes the core's decisions durable and carries them out."""

from .audit import audited
from .identity import keep_secret
from .opening import open_runtime
from .runtime import Once, Registration, Runtime, View
from .world import World

__all__ = ["Once", "Registration", "Runtime", "View", "World", "audited", "keep_secret", "open_runtime"]
