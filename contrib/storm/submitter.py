"""One process that submits: a few threads, each with a sequence of submissions of its own.

What it asked and was told are records in ``seen/clients.jsonl``: ``submitting`` before each call,
``acknowledged``, ``refused`` or ``unknown`` after it. A call that is refused or unknown is made
again after a while, as a program of a user's would; one that was cut off by a kill of the process
is made again by the next process if it has a key, and else given up.

    python -m contrib.storm.submitter DIRECTORY SEED GENERATION PER_MINUTE
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
import uuid

import taskd
from contrib.storm import clientprocess, workload
from contrib.storm.place import Place, load, plain_environment
from contrib.storm.workload import Submission
from taskd.errors import Error, Refused

THREADS = 2

AGAIN = 0.25
"""Seconds between a call that failed and the same again."""

TASKCTL = "import sys; from taskd.cli.taskctl import main; sys.exit(main())"


class Submitter:
    """One thread's. ``seed``: of its sequence; the next process goes on with another."""

    def __init__(self, place: Place, seed: str, per_minute: float) -> None:
        self._place = place
        self._client = taskd.Client(place.sockets, timeout=20)
        self._planned = workload.submissions(seed, per_minute, place.script)

    def run(self, first: list[Submission]) -> None:
        """Until the process is to end; ``first``: what the process before was cut off in."""
        for planned in itertools.chain(first, self._planned):
            if clientprocess.ended.wait(planned.gap):
                return
            for _ in range(planned.times):
                self._until_acknowledged(planned)

    def _until_acknowledged(self, planned: Submission) -> None:
        while not clientprocess.ended.is_set():
            call = uuid.uuid4().hex
            self._tell("submitting", call, planned)
            try:
                task = self._by_cli(planned) if planned.by_cli else self._by_library(planned)
            except Refused as error:
                self._tell("refused", call, planned, code=error.code, why=str(error))
            except Error as error:
                self._tell("unknown", call, planned, why=str(error))
                if not planned.key:
                    return
            else:
                self._tell("acknowledged", call, planned, task=task)
                return
            clientprocess.ended.wait(AGAIN)

    def _by_library(self, planned: Submission) -> int:
        return self._client.submit(
            planned.name,
            planned.args,
            key=planned.key,
            priority=planned.priority,
            delay=planned.delay,
            queue=planned.queue,
        ).id

    def _by_cli(self, planned: Submission) -> int:
        words = [sys.executable, "-c", TASKCTL, "--socket", self._place.sockets, "run"]
        words += ["--priority", str(planned.priority), "--", *planned.args["argv"]]
        ran = subprocess.run(
            words, capture_output=True, text=True, env=plain_environment(), check=False
        )
        if ran.returncode != 0:
            raise Error(f"taskctl run exited {ran.returncode}: {ran.stderr.strip()}")
        return int(ran.stdout)

    def _tell(self, said: str, call: str, planned: Submission, **more: object) -> None:
        told: dict[str, object] = {"said": said, "call": call, "tag": planned.tag}
        if said == "submitting":
            told |= {"name": planned.name, "args": planned.args, "key": planned.key}
            told |= {"queue": planned.queue}
        self._place.tell("clients.jsonl", at=time.monotonic_ns(), **told, **more)


def cut_off(place: Place, seed: str) -> list[Submission]:
    """The submissions with a key that a process of this seed before us was cut off in."""
    waiting: dict[str, Submission] = {}
    if not os.path.exists(place.seen("clients.jsonl")):
        return []
    with open(place.seen("clients.jsonl"), encoding="utf-8") as file:
        for record in map(json.loads, file):
            if not record["tag"].startswith(seed):
                continue
            if record["said"] != "submitting":
                waiting.pop(record["call"], None)
            elif record["key"] is not None:
                waiting[record["call"]] = Submission(
                    0.0, record["tag"], record["name"], record["args"], record["key"], 0, None, 1,
                    False, record["queue"],
                )  # fmt: skip
    return list(waiting.values())


def main() -> None:
    root, seed, generation, per_minute = sys.argv[1:]
    place = load(root)
    clientprocess.begin()
    before = cut_off(place, seed + ".") if generation != "0" else []
    threads = []
    for number in range(THREADS):
        its = Submitter(place, f"{seed}.{generation}.{number}", float(per_minute) / THREADS)
        thread = threading.Thread(target=its.run, args=(before if number == 0 else [],))
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
