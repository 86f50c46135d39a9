"""The shell: makes the core's decisions durable and carries them out."""

from .opening import open_runtime
from .runtime import Once, Registration, Runtime, View

__all__ = ["Once", "Registration", "Runtime", "View", "open_runtime"]
