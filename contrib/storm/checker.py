"""The checker: from what was seen from outside, which promises were broken.

Pure, and knows nothing of taskd's insides: its facts are what clients were told, what the tasks
themselves wrote down, and the results and events that any client can fetch. Run it again on what a
storm left behind with ``python -m contrib.storm.checker DIRECTORY``.

Each rule is one function that takes the history and gives what breaks it; ``RULES`` lists them.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from contrib.storm import programs
from contrib.storm.history import EVERY, Call, History, Life, Line, Record, read
from contrib.storm.resuming import Walk

ENDED = ("succeeded", "failed", "cancelled")

MOVES = {
    "queued": {"running", "cancelled", "held"},
    "scheduled": {"queued", "cancelled"},
    "running": {"succeeded", "failed", "cancelled", "queued", "scheduled", "held"},
    "held": {"queued", "cancelled"},
}
"""Which state may follow which. None follows an end: the storm retries only what is held."""

HELD_RIGHTLY = "at the same place"
"""What a hold says whose crash budget is spent: the only reason that the storm gives for one."""

KILLED = 9
TOLD_TO_STOP = 15
"""By this a daemon that starts just now ends, before it has said that it stops by itself."""

COMMAND = "command"
GUARD = "guard"


class Violation(NamedTuple):
    """A promise that was broken. ``task`` is None where it is about no single one."""

    rule: str
    task: int | None
    what: str


class Facts:
    """The history, sorted for the rules."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.calls: dict[int, Call] = {c.task: c for c in history.calls if c.task is not None}
        self.by_tag = {call.tag: call for call in history.calls}
        self.lines: dict[int, list[Line]] = defaultdict(list)
        self.events: dict[int, list[Record]] = defaultdict(list)
        for line in history.lines:
            self.lines[line.task].append(line)
        for event in history.events:
            self.events[event["task"]].append(event)
        self.tags = {task: self._tag(task) for task in {*self.lines, *self.calls}}
        self.cancelled = {cancel.task for cancel in history.cancels}
        self.walks: dict[int, Walk] = {}

    def _tag(self, task: int) -> str | None:
        """What a task says that it is; one that never ran has said nothing."""
        said = [line.what for line in self.lines[task] if line.event == "attempt-begin"]
        return said[0] if said else self.calls[task].tag if task in self.calls else None

    def call(self, task: int) -> Call | None:
        """The submission that a task comes from, acknowledged or not."""
        return self.calls.get(task) or self.by_tag.get(self.tags.get(task) or "")

    def state(self, task: int) -> str | None:
        found = self.history.tasks.get(task)
        return None if found is None else found["state"]


Problems = Iterable[tuple[int | None, str]]


# ── what was accepted is there, once ─────────────────────────────────────────────────────────


def nothing_is_lost(facts: Facts) -> Problems:
    for task in facts.calls:
        if task not in facts.history.tasks:
            yield task, "was acknowledged, and the daemon does not know it"


def every_task_has_ended(facts: Facts) -> Problems:
    for task, found in facts.history.tasks.items():
        if found["state"] not in ENDED:
            yield task, f"is {found['state']} ({found['reason']}), long after the storm"


def one_submission_is_one_task(facts: Facts) -> Problems:
    """With a key it may be another one for each call, but only once the one before has ended."""
    tasks: dict[str, list[int]] = defaultdict(list)
    for task, tag in facts.tags.items():
        if tag is not None:
            tasks[tag].append(task)
    calls = Counter(call.tag for call in facts.history.calls)
    for tag, found in tasks.items():
        if tag != GUARD and len(found) > calls[tag]:
            yield found[-1], f"tasks {found} run for {calls[tag]} submissions of {tag}"
        for task in found:
            call = facts.calls.get(task)
            if call is not None and call.tag != tag:
                yield task, f"was acknowledged for {call.tag} and runs {tag}"
        yield from _lives_overlap(facts, sorted(found))


def _lives_overlap(facts: Facts, tasks: list[int]) -> Problems:
    for before, after in pairwise(tasks):
        call, first, last = facts.call(after), facts.events[after], facts.events[before]
        if call is None or call.key is None or not first or not last:
            continue
        if first[0]["event"] < last[-1]["event"]:
            yield after, f"was accepted under the key of task {before}, which had not ended"


def only_a_full_disk_refuses(facts: Facts) -> Problems:
    for refusal in facts.history.refused:
        if refusal["code"] != "store":
            yield None, f"submission {refusal['tag']} was refused: {refusal['why']}"


def only_spent_budgets_hold(facts: Facts) -> Problems:
    for held in facts.history.held:
        if HELD_RIGHTLY not in str(held["why"]):
            yield held["task"], f"was held: {held['why']}"


# ── one attempt at a time, one end ───────────────────────────────────────────────────────────


def none_runs_twice_at_a_time(facts: Facts) -> Problems:
    for task, lines in facts.lines.items():
        if any(line.event == "overlap" for line in lines):
            yield task, "an attempt began while the one before still ran"
        numbers = [line.attempt for line in lines]
        if numbers != sorted(numbers):
            back = next(b for a, b in pairwise(lines) if b.attempt < a.attempt)
            yield task, f"attempt {back.attempt} went on after a later one had begun"
        begun = Counter(line.attempt for line in lines if line.event == "attempt-begin")
        for attempt, times in begun.items():
            if times > 1:
                yield task, f"attempt {attempt} began {times} times"
        pids = defaultdict(set)
        for line in lines:
            pids[line.attempt].add(line.pid)
        for attempt, found in pids.items():
            if len(found) > 1:
                yield task, f"attempt {attempt} ran in the processes {sorted(found)}"


def no_queue_has_more_than_its_places(facts: Facts) -> Problems:
    """By the numbered events, and so as the store has it at any moment, whoever died."""
    running: dict[str, set[int]] = defaultdict(set)
    for event in facts.history.events:
        found = facts.history.tasks.get(event["task"])
        for queue in (EVERY, found["queue"] if found is not None else None):
            if queue is None:
                continue
            change = running[queue].add if event["state"] == "running" else running[queue].discard
            change(event["task"])
            if len(running[queue]) > facts.history.places.get(queue, 0):
                yield event["task"], f"ran beside {len(running[queue]) - 1} others in {queue}"


def nothing_runs_after_the_end(facts: Facts) -> Problems:
    for task, lines in facts.lines.items():
        found = facts.history.tasks.get(task)
        if found is not None and lines and max(line.attempt for line in lines) > found["attempt"]:
            yield task, f"an attempt ran after number {found['attempt']}, which the daemon knows"
        if found is not None and found["state"] == "succeeded":
            last = lines[-1]
            if last.event != "attempt-end" or last.what != "returned":
                yield task, f"succeeded, and its last attempt ended with {last.event} {last.what}"


def each_ends_once(facts: Facts) -> Problems:
    for task in facts.history.tasks:
        events = facts.events[task]
        ends = [event["state"] for event in events if event["state"] in ENDED]
        if len(ends) > 1:
            yield task, f"ended {len(ends)} times: {ends}"
        if events and ends and events[-1]["state"] != facts.state(task):
            yield task, f"is {facts.state(task)}, and its last event says {events[-1]['state']}"


def states_follow_each_other(facts: Facts) -> Problems:
    for task, events in facts.events.items():
        states = [event["state"] for event in events]
        if states[0] not in ("queued", "scheduled"):
            yield task, f"its first event is {states[0]}"
        for before, after in pairwise(states):
            if after not in MOVES.get(before, ()):
                yield task, f"went from {before} to {after}"
        runs = [event["attempt"] for event in events if event["state"] == "running"]
        if runs != list(range(1, len(runs) + 1)):
            yield task, f"its attempts are numbered {runs}"


def events_have_no_gap(facts: Facts) -> Problems:
    numbers = [event["event"] for event in facts.history.events]
    twice = [number for number, times in Counter(numbers).items() if times > 1]
    if twice:
        yield None, f"events came twice: {twice[:10]}"
    missing = sorted(set(range(1, max(numbers, default=0) + 1)) - set(numbers))
    if missing:
        yield None, f"events are missing: {missing[:10]}"


def who_followed_missed_nothing(facts: Facts) -> Problems:
    for stream in facts.history.followed:
        tasks = set(stream.tasks)
        whole = [event for task in tasks for event in facts.events[task]]
        whole.sort(key=lambda event: int(event["event"]))
        if stream.events != whole[: len(stream.events)]:
            at = next(n for n, e in enumerate(stream.events) if e not in whole[n : n + 1])
            yield None, f"a stream told {stream.events[at]} where {whole[at : at + 1]} was due"


# ── what was done ────────────────────────────────────────────────────────────────────────────


def nothing_kept_is_done_again(facts: Facts) -> Problems:
    for task, lines in facts.lines.items():
        call = facts.call(task)
        if call is None:
            if facts.tags[task] != GUARD:
                yield task, f"runs {facts.tags[task]}, which nobody submitted"
        elif call.name != COMMAND:
            walk = facts.walks[task] = Walk(call.args["program"], task in facts.cancelled)
            problem = walk.check(lines)
            if problem is not None:
                yield task, problem


def results_are_right(facts: Facts) -> Problems:
    for task, found in facts.history.tasks.items():
        call = facts.call(task)
        if call is None or found["state"] != "succeeded":
            continue
        if call.name == COMMAND:
            if found["result"] != 0:
                yield task, f"a command's result is {found['result']}"
            continue
        program = call.args["program"]
        kept = facts.walks[task].steps if task in facts.walks else {}
        steps = {name: kept.get(name) for name in programs.outer_steps(program)}
        right = {
            "tag": call.tag,
            "sum": programs.total(program),
            "held": programs.held_sum(program),
            "steps": steps,
            "further": further(call),
        }
        if found["result"] != right:
            yield task, f"its result is {found['result']}, and should be {right}"


def further(call: Call) -> Record:
    """The arguments that are not the same for all tasks of the app."""
    return {name: value for name, value in call.args.items() if name not in ("tag", "program")}


def ends_are_as_they_must_be(facts: Facts) -> Problems:
    for task, found in facts.history.tasks.items():
        call, state = facts.call(task), found["state"]
        if state == "cancelled" and task not in facts.cancelled and found["name"] != GUARD:
            yield task, "was cancelled, and nobody asked for that"
        if call is None:
            continue
        doomed = call.name != COMMAND and programs.is_doomed(call.args["program"])
        if state == "failed" and not doomed:
            yield task, f"failed: {found['error']}"
        if state == "succeeded" and doomed:
            yield task, "succeeded, and could not"


def who_is_cancelled_ends(facts: Facts) -> Problems:
    for cancel in facts.history.cancels:
        if cancel.at is None or cancel.was in ENDED:
            continue
        state = facts.state(cancel.task)
        if state not in ("cancelled", "succeeded"):
            yield cancel.task, f"was {cancel.was} when it was cancelled, and is {state}"
        begun = [
            line.attempt
            for line in facts.lines[cancel.task]
            if line.event == "attempt-begin" and line.at > cancel.at
        ]
        if len(begun) > 1:  # one may have been on its way
            yield cancel.task, f"attempts {begun} began after it was cancelled"


def the_daemon_ends_as_it_was_made_to(facts: Facts) -> Problems:
    """Of a kill, or of a stop; or it gives up a start, as its disk is full or its zygote was
    killed: it is started again then."""
    for life in facts.history.lives:
        if life.status == -KILLED:
            continue
        if life.status == 1 and _start_was_spoilt(life, facts.history):
            continue
        was_stopped = any(life.began <= at <= life.ended for at in facts.history.stops)
        if not (was_stopped and life.status in (0, -TOLD_TO_STOP)):
            lasted = life.ended - life.began
            yield None, f"the daemon ended by itself with status {life.status} after {lasted:.1f} s"


def _start_was_spoilt(life: Life, history: History) -> bool:
    full = any(since < life.ended and life.began < until for since, until in history.full)
    return full or any(life.began <= at <= life.ended for at in history.kills)


def nothing_crashed(facts: Facts) -> Problems:
    for crash in facts.history.crashes:
        yield None, f"a process of the daemon ended by {crash}"


def no_bad_release_ran(facts: Facts) -> Problems:
    for line in facts.history.lines:
        if line.release.startswith("bad"):
            yield line.task, f"ran on {line.release}, which must be refused"


def the_storm_found_nothing(facts: Facts) -> Problems:
    for finding in facts.history.findings:
        yield None, finding


RULES: tuple[Callable[[Facts], Problems], ...] = (
    nothing_is_lost,
    every_task_has_ended,
    one_submission_is_one_task,
    only_a_full_disk_refuses,
    only_spent_budgets_hold,
    none_runs_twice_at_a_time,
    no_queue_has_more_than_its_places,
    nothing_runs_after_the_end,
    each_ends_once,
    states_follow_each_other,
    events_have_no_gap,
    who_followed_missed_nothing,
    nothing_kept_is_done_again,
    results_are_right,
    ends_are_as_they_must_be,
    who_is_cancelled_ends,
    the_daemon_ends_as_it_was_made_to,
    nothing_crashed,
    no_bad_release_ran,
    the_storm_found_nothing,
)


def check(history: History) -> list[Violation]:
    """All that is wrong; empty if every promise was kept."""
    return list(_check(Facts(history)))


def _check(facts: Facts) -> Iterator[Violation]:
    for rule in RULES:
        for task, what in rule(facts):
            yield Violation(rule.__name__.replace("_", " "), task, what)


def main() -> int:
    found = check(read(os.path.join(sys.argv[1], "seen")))
    for violation in found:
        print(f"{violation.rule}: task {violation.task}: {violation.what}")
    print(f"{len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
