"""Python functions on a Ray cluster: `JAMJET_COMPUTE=ray://host:port`.

What is durable is the runtime's: it knows which functions are to run, and hands each to Ray as a task that Ray never
repeats by itself. Ray's is the placement. Whatever dies, the runtime hands the call in again, under the same
idempotency key.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from jamjet_kernel import Compute, PluginError, Settings, hookimpl

if TYPE_CHECKING:
    from .compute import RayCompute

# Everything else is imported for a URL of Ray's alone: each command loads this plugin. Ray itself is imported in the
# driver's process only.


@hookimpl
def open_compute(url: str, settings: Settings) -> Compute | None:
    if url != "ray" and not url.startswith("ray:"):
        return None
    return _ray_compute(url, settings)


def _ray_compute(url: str, settings: Settings) -> RayCompute:
    from .compute import RayCompute
    from .settings import RaySettings, address_of

    address = address_of(url)
    needed = ("ray", "grpc") if address.startswith("ray://") else ("ray",)
    if missing := [name for name in needed if find_spec(name) is None]:
        raise PluginError(f"JAMJET_COMPUTE={url} needs {missing[0]}: pip install 'jamjet-runtime[ray]'")
    return RayCompute(address, RaySettings.read(), settings)
