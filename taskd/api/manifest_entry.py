"""A task's entry in the manifest (see ``task`` in ``protocol.worker``). Runs in the zygote.

The ``tasks.Task`` is not imported: it is what imports this.
"""

from __future__ import annotations

from typing import Any

from taskd.api import checks
from taskd.api.step_names import names_in
from taskd.model.routing import readable


def entry(task: Any) -> dict[str, Any]:
    taken = checks.takes(task.signature)
    return {
        "version": task.version,
        "queue": task.queue,
        "retries": task.retries,
        "on_deploy": task.on_deploy.value,
        "params": taken["params"],
        "any": taken["any"],
        "types": task.annotations.forms,
        "unresolved": task.annotations.unresolved,
        "reads": readable(task.version, task.migrations),
        "names": names_in(task.fn),
        "retry": task.rules.in_manifest(),
        "timeout": task.timeout,
        "silent_after": task.silent_after,
        "schedule": task.schedule,
        "limits": task.limited.in_manifest(),
    }
