"""The client of this process: that of ``fn.submit(…)``, made by the first of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskd.client.blocking import Client

made: Client | None = None
"""It notices by itself after a fork."""


def client() -> Client:
    global made
    if made is None:
        from taskd.client.blocking import Client

        made = Client()
    return made
