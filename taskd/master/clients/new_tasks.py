"""New tasks as clients submit them: checked, and as the store takes them."""

from __future__ import annotations

from typing import Any

from taskd.errors import BadArguments, ProtocolError, Refused, UnknownTask
from taskd.master.clients.client import Client
from taskd.master.clients.programs import check_program
from taskd.master.clients.queues import Queues
from taskd.master.fleet import Revisions
from taskd.model import limits
from taskd.model.arguments import mistyped
from taskd.model.binding import SECRET_SIGN, bind
from taskd.model.order import IfFailed
from taskd.model.task import COMMAND, OnDeploy
from taskd.protocol import data, secret, submission
from taskd.protocol.submission import JOIN, REPLACE
from taskd.record import Record
from taskd.store.api import Share, Submit, Submitted
from taskd.store.submit_api import REMOVED, REPLACED, Parent


class NewTasks(Record):
    revisions: Revisions
    queues: Queues

    def task(self, client: Client, task: dict[str, Any], now: float, share: Share | None) -> Submit:
        """Raises Refused."""
        name = task["name"]
        entry = self._entry(name, task.get("parent") is not None)
        args = _arguments(task["args"])
        # A zygote of 0.2 tells no types.
        if (why := bind(entry, args) or mistyped(entry.get("types") or {}, args)) is not None:
            raise BadArguments(f"{name}: {why}")
        if name == COMMAND:
            check_program(client, args, self.revisions.current)
        try:
            carried = limits.keys(entry, args)
        except ValueError as error:
            raise BadArguments(f"{name}: {error}") from None
        secrets: set[str] = set()
        if secret.MARK in task["args"]:
            secrets = {arg for arg, value in args.items() if secret.found_in([arg, value])}
        queue = task.get("queue") or entry["queue"]
        if queue != entry["queue"]:
            self.queues.check(client, queue)
        if task.get("due") is not None and task.get("delay"):
            raise Refused(f"{name}: delay and due are both given; a task is due at one time")
        expires = task.get("expires")
        if expires is not None and expires <= (task.get("delay") or (task.get("due") or 0) - now):
            raise Refused(f"{name}: it would expire before it is due")
        _check_key(name, task)
        _check_order(name, task)
        wish = (task.get("options") or {}).get("on_deploy")
        return Submit(
            submission=task["submission"],
            owner=client.uid,
            name=name,
            version=entry["version"],
            args=task["args"],
            shape=",".join(arg + SECRET_SIGN * (arg in secrets) for arg in sorted(args)),
            queue=queue,
            priority=task.get("priority") or 0,
            key=task.get("key"),
            delay=task.get("delay") or None,
            retries=entry["retries"],
            on_deploy=OnDeploy(wish) if wish else None,
            at=now,
            share=share,
            retries_said=task.get("retries"),
            named=_named(task),
            made=submission.made(task["submission"], task.get("submission_kind")),
            due=task.get("due"),
            expires=expires,
            timeout=task.get("timeout"),
            limits=carried,
            if_exists=task.get("if_exists") or JOIN,
            key_for=task.get("key_for"),
            at_most=task.get("at_most"),
            after=tuple(dict.fromkeys(task.get("after") or ())),
            if_failed=IfFailed(task.get("if_failed") or IfFailed.HOLD),
            after_any=client.owner is None,
            parent=_parent(name, task),
            after_new=tuple(dict.fromkeys(task.get("after_new") or ())),
        )

    def _entry(self, name: str, is_child: bool) -> dict[str, Any]:
        """The current revision's entry of the task; of a child that this does not know, that of
        another live one, perhaps its parent's. Raises UnknownTask, with similar names."""
        current = self.revisions.current
        assert current is not None, "requests are read only once a revision serves"
        entry = current.tasks.get(name)
        for revision in self.revisions.live() if is_child else ():
            entry = entry or revision.tasks.get(name)
        if entry is not None:
            return dict(entry)
        import difflib

        near = difflib.get_close_matches(name, current.tasks, 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UnknownTask(f"{current.name} has no task {name!r}{hint}")


def _named(task: dict[str, Any]) -> float | None:
    """For how long its submission id is known, if that is a named one."""
    if task.get("submission_kind") != submission.NAMED:
        return None
    said: float | None = task.get("named_for")
    return submission.NAMED_FOR if said is None else said


def submitted_view(made: Submitted) -> dict[str, Any]:
    """What is told of a submission (see ``protocol.control``)."""
    told: dict[str, Any] = {"id": made.task, "created": made.created}
    if made.how == REPLACED:
        told["replaced"] = True
    if made.how == REMOVED:
        told["state"] = REMOVED
    return told


def _check_key(name: str, task: dict[str, Any]) -> None:
    """Raises Refused for wishes about a key that cannot be fulfilled."""
    given = {field for field in ("if_exists", "key_for") if task.get(field) is not None}
    if given and task.get("key") is None:
        raise Refused(f"{name}: {' and '.join(sorted(given))} without a key; say which")
    replaces = task.get("if_exists") == REPLACE
    if replaces and task.get("key_for") is not None:
        raise Refused(
            f'{name}: key_for keeps a second task away, if_exists = "{REPLACE}" has it wait: say '
            "one of them"
        )
    if task.get("at_most") is not None and not (replaces and task.get("delay")):
        raise Refused(
            f'{name}: at_most says how long delay with if_exists = "{REPLACE}" may put a task off; '
            "it needs both"
        )


def _check_order(name: str, task: dict[str, Any]) -> None:
    """Raises Refused for wishes about an order that cannot be fulfilled."""
    others = task.get("after") or task.get("after_new")
    if task.get("if_failed") is not None and not others:
        raise Refused(f"{name}: if_failed without after; say after which tasks it is to run")
    if others and task.get("if_exists") == REPLACE:
        raise Refused(
            f'{name}: after and if_exists = "{REPLACE}" would have it wait in two ways; say one'
        )


def _parent(name: str, task: dict[str, Any]) -> Parent | None:
    """Raises Refused for a child that is not wholly said."""
    given = [task.get(field) for field in ("parent", "parent_attempt", "child")]
    if given == [None] * 3 and not task.get("detached"):
        return None
    if None in given:
        raise Refused(f"{name}: a child has a parent, its attempt, and a name")
    return Parent(task["parent"], task["parent_attempt"], task["child"], bool(task.get("detached")))


def _arguments(raw: bytes) -> dict[str, Any]:
    try:
        args = data.decode(raw)
    except ProtocolError as error:
        raise BadArguments(f"the arguments are not plain data: {error}") from None
    if not isinstance(args, dict) or not all(isinstance(name, str) for name in args):
        raise BadArguments("the arguments must be a dict with text keys")
    return args
