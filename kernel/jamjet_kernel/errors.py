"""What can go wrong, as one small tree.

JamJetError                     code: a stable string, in every error body beside "error"
  NotFound                      there is no such thing
  Invalid                       the caller's data; `problems` lists each with its place
    OutgoingRefused             a request to the outside would go where it may not
  Unauthenticated               who calls is not proven
  Forbidden                     who calls may not do this
  Conflict                      the thing is not in a state that allows this
    SequenceConflict            somebody else moved the execution on; reload and decide again
    InvalidTransition           this event cannot happen now
    LeaseLost                   the work belongs to another worker by now
    KeyTaken                    the idempotency key was committed by another request
    LimitReached                the tenant has as many as its limits allow
  RateExceeded                  the tenant has used up what its limits allow for now
  Overloaded                    there is more to do than the runtime or its database can take
  PluginError                   refuse to start
  StorageError                  the database did not do it; nothing was stored
    StorageUnsure               whether it was stored is not known
    StorageSilent               the database does not answer; nothing was asked of it
    Evicted                     this process was taken for dead, and others took over its work
  RemoteFailed                  another server did not answer as it should

NodeFailed, RateLimited         what an executor raises
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class JamJetError(Exception):
    """Something went wrong."""

    code = "error"

    def __init__(self, message: str | None = None, **details: Any) -> None:
        super().__init__(message or (self.__doc__ or "").split("\n")[0])
        self.details = details


class NotFound(JamJetError):
    """There is no such thing."""

    code = "not_found"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the caller's data, and where: `nodes.review.kind.timeout`."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class Invalid(JamJetError):
    """The data is not valid."""

    code = "invalid"

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        self.problems = [Problem("", problems)] if isinstance(problems, str) else list(problems)
        places = [{"place": p.place, "message": p.message} for p in self.problems]
        super().__init__("; ".join(map(str, self.problems)), problems=places)


class OutgoingRefused(Invalid):
    """A request to the outside would go where it may not."""

    code = "outgoing_refused"


class Unauthenticated(JamJetError):
    """invalid or expired token"""

    code = "unauthenticated"


class Forbidden(JamJetError):
    """insufficient role"""

    code = "forbidden"


class Conflict(JamJetError):
    """The thing is not in a state that allows this."""

    code = "conflict"


class SequenceConflict(Conflict):
    """Another writer moved the execution on."""

    code = "sequence_conflict"


class InvalidTransition(Conflict):
    """This event cannot happen now."""

    code = "invalid_transition"


class LeaseLost(Conflict):
    """The work belongs to another worker by now."""

    code = "lease_lost"


class KeyTaken(Conflict):
    """The idempotency key was committed by another request."""

    code = "idempotency_key_taken"


class LimitReached(Conflict):
    """The tenant has as many as its limits allow."""

    code = "limit_reached"

    def __init__(self, limit: str, value: float) -> None:
        super().__init__(f"the tenant's limit {limit} of {value} is reached", limit=limit, value=value)


class RateExceeded(JamJetError):
    """The tenant has used up what its limits allow for now."""

    code = "rate_exceeded"

    def __init__(self, limit: str, value: float, retry_after: float) -> None:
        super().__init__(f"the tenant's limit {limit} of {value} is used up", limit=limit, value=value)
        #: Seconds.
        self.retry_after = retry_after


class Overloaded(JamJetError):
    """There is more to do than the runtime or its database can take."""

    code = "overloaded"

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        #: Seconds.
        self.retry_after = retry_after


class PluginError(JamJetError):
    """A plugin is broken, missing or contradictory."""

    code = "plugin_error"


class StorageError(JamJetError):
    """The storage could not do it; nothing was stored."""

    code = "storage_error"
    retry_after = 1.0


class StorageUnsure(StorageError):
    """Whether it was stored is not known."""

    code = "storage_unsure"


class StorageSilent(StorageError):
    """The database does not answer; nothing was asked of it."""

    code = "storage_silent"


class Evicted(StorageError):
    """This process was taken for dead, and others took over its work; nothing was stored."""

    code = "evicted"

    def __init__(self, worker_id: str) -> None:
        super().__init__(worker_id=worker_id)
        #: The name that it had when it was. By now it may have another.
        self.worker_id = worker_id


class RemoteFailed(JamJetError):
    """Another server did not answer as it should."""

    code = "remote_failed"


ERROR_CLASSES = ("timeout", "rate_limit", "io_error", "server_error", "connection_reset", "custom")
"""What `retryable_on` of a retry policy chooses from."""


class NodeFailed(Exception):
    """An executor's word that this attempt failed.

    `error_class` is one of `ERROR_CLASSES`; a `retryable` failure is tried again as the node's
    retry policy says. `details` must be JSON and ends up in the `NodeFailed` event.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = True,
        error_class: str = "custom",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.error_class = error_class
        self.details = dict(details or {})


class RateLimited(Exception):
    """The other side asks to wait. Parks the node for `retry_after` seconds and costs no attempt."""

    def __init__(self, retry_after: float, message: str = "rate limited") -> None:
        super().__init__(message)
        self.retry_after = retry_after
