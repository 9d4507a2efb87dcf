"""Every error that taskd shows to its users, sorted by whose fault it is.

Used in every process. Imports nothing of taskd. Each class has a stable ``code``, which is sent to
clients and which scripts may rely on; the text is for people and may change.

* ``NoDaemon``: no daemon answered on the socket. A retry helps once the daemon runs.
* ``Refused`` and its subclasses: the daemon (or the client library, before sending) refused the
  request. Repeating it does not help, except after ``Busy`` and ``LimitReached``, which are
  transient.
* ``TaskFailed``, ``TaskHeld``, ``TaskCancelled``: the request succeeded, the task did not.
* ``ProtocolError``: the peer broke the protocol; it loses its connection and nothing else.
"""

from __future__ import annotations

from typing import ClassVar


class Error(Exception):
    """The root of all errors that taskd raises on purpose."""

    code: ClassVar[str] = "error"


class NoDaemon(Error):
    """No daemon is reachable; the text names every socket that was tried."""

    code = "no-daemon"


class Refused(Error):
    """The request was understood and refused; the text says why and what to do."""

    code = "refused"


class UnknownTask(Refused):
    """No task function of that name in the current revision, or no task of that id."""

    code = "unknown-task"


class BadArguments(Refused):
    """The arguments do not bind to the task's signature; the text names them."""

    code = "bad-arguments"


class KeyConflict(Refused):
    """The key is taken by a live task with another name or other arguments."""

    code = "key-conflict"


class NotPlainData(Refused):
    """A value that cannot be saved: not plain data, too large or too deep; the text says where."""

    code = "not-plain-data"


class NotAllowed(Refused):
    """The peer's user may not do this."""

    code = "not-allowed"


class Busy(Refused):
    """The daemon has no room for this request, of its peer, of its user or of all: try later."""

    code = "busy"


class LimitReached(Refused):
    """The user has as many tasks or bytes in the daemon as [access] allows, or the disk has no more
    space than [access] reserves. Transient: once tasks have ended or there is space, the same
    submission may be accepted. Nothing of the request was accepted.
    """

    code = "limit-reached"


class Meanwhile(Refused):
    """The task is no longer in the state in which it was chosen."""

    code = "meanwhile"


class TooOld(Refused):
    """A submission was sent again so late that the daemon no longer knows whether it was carried
    out. Nothing was run now."""

    code = "too-old"


class DeployRefused(Refused):
    """The new revision did not prove itself; the old one serves on."""

    code = "deploy-refused"


class StoreError(Refused):
    """The store could not commit (disk full, read-only, damaged); nothing was acknowledged."""

    code = "store"


class StoreDamaged(StoreError):
    """The store's file is damaged: waiting does not help."""


class StoreUnknown(Error):
    """A commit failed in a way that leaves open whether it was made. Only the store's writer thread
    meets this: it asks the store, and tells others what came of it. Not a StoreError, which says
    that nothing happened."""

    code = "store-unknown"


class TaskFailed(Error):
    """The task ended by an exception of its own, its retries used up."""

    code = "task-failed"


class TaskHeld(Error):
    """The task waits for an operator; the text is the reason it shows."""

    code = "task-held"


class TaskCancelled(Error):
    """The task was cancelled."""

    code = "task-cancelled"


class ProtocolError(Error):
    """The peer sent what the protocol does not allow."""

    code = "protocol"


class ConfigError(Error):
    """A wrong ``taskd.toml``; the text names the file, the key and what was expected."""

    code = "config"


REFUSALS: dict[str, type[Refused]] = {
    kind.code: kind
    for kind in (
        Refused,
        UnknownTask,
        BadArguments,
        KeyConflict,
        NotPlainData,
        NotAllowed,
        Busy,
        LimitReached,
        Meanwhile,
        TooOld,
        DeployRefused,
        StoreError,
    )
}


def refusal(code: str, message: str) -> Refused:
    """The exception for a refusal that a daemon sent; for an unknown code a plain Refused."""
    return REFUSALS.get(code, Refused)(message)
