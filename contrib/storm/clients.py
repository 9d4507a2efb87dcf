"""The client processes of a storm, from the side of who starts and troubles them."""

from __future__ import annotations

import json
import os
import signal
import subprocess

from contrib.storm import clientprocess
from contrib.storm.place import Place

SUBMITTERS = 3

RECENT = 6
"""Of so many tasks that were acknowledged last, one is cancelled."""

TAIL = 200_000

END_WITHIN = 60.0
"""Seconds that a client has to finish what it asks."""


class Clients:
    """The submitters and the one that follows. Each submitter that is killed is started again."""

    def __init__(self, place: Place, seed: str, per_minute: float) -> None:
        self._place = place
        self._seed = seed
        self._per_minute = per_minute / SUBMITTERS
        self._generations = [0] * SUBMITTERS
        self._submitters = [self._submitter(number) for number in range(SUBMITTERS)]
        self._follower = clientprocess.spawn("follower", place.root)

    def _submitter(self, number: int) -> subprocess.Popen[bytes]:
        generation = self._generations[number]
        words = [f"{self._seed}.{number}", str(generation), str(self._per_minute)]
        return clientprocess.spawn("submitter", self._place.root, *words)

    def cut(self, dice: float) -> str:
        """Cut the connections of one of them."""
        among = [*self._submitters, self._follower]
        among[int(dice * len(among))].send_signal(signal.SIGUSR1)
        return "done"

    def kill(self, dice: float) -> str:
        number = int(dice * SUBMITTERS)
        self._submitters[number].kill()
        self._submitters[number].wait()
        self._generations[number] += 1
        self._submitters[number] = self._submitter(number)
        return "done"

    def recent(self, dice: float) -> int | None:
        """A task that was acknowledged of late."""
        path = self._place.seen("clients.jsonl")
        if not os.path.exists(path):
            return None
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            texts = file.read().split(b"\n")[1:-1]
        records = [json.loads(text) for text in texts if b'"acknowledged"' in text]
        tasks = [record["task"] for record in records][-RECENT:]
        return tasks[int(dice * len(tasks))] if tasks else None

    def end_submitting(self) -> None:
        """Have them finish what they ask."""
        for submitter in self._submitters:
            submitter.terminate()
        for submitter in self._submitters:
            if submitter.wait(END_WITHIN) != 0:
                self._place.tell("findings.jsonl", finding="a submitter ended by an error")

    def end(self) -> None:
        """End all of them, however they are."""
        for client in [*self._submitters, self._follower]:
            if client.poll() is None:
                client.kill()
                client.wait()
