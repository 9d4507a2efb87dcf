"""The app that the storm deploys: tasks that carry out small programs, and tell of all they do.

A program is a list of moves, which the submitter makes up (see ``workload``)::

    ["step", NAME, SECONDS, BYTES]          a step that takes so long and keeps so much
    ["each", NAME, COUNT, SOURCE, PROGRAM]  a loop; SOURCE is "sequence" or "cursor"
    ["nap", NAME, SECONDS]                  a named sleep
    ["work", SECONDS]                       plain code
    ["checkpoint"]
    ["hold", BYTES]                         puts so much into ``ctx.state``, for good
    ["raise", NAME, TIMES]                  raises, TIMES times at most over all attempts
    ["fail"]                                raises whenever it is reached
    ["print", BYTES]                        output

A task's result has a sum over all items in the order of their ends, and what its outer steps gave:
an item that was lost, repeated or changed in order gives another sum. It has a sum over what it was
to hold, which is put there once and saved again and again, and its further arguments. The sum over
items is a part of ``ctx.state``, changed last of all in each item, and so saved with it or not at
all.
"""

import asyncio
import os
import random
import time
import zlib

import witness

from taskd import task


class Flaky(Exception):
    """To be tried again."""


class Doomed(Exception):
    """Never to succeed."""


def numbers(cursor, count):
    """A source that goes on behind the last cursor."""
    for number in range(cursor or 0, count):
        yield number + 1, number


def source_of(kind, count):
    return (range(count),) if kind == "sequence" else (numbers, count)


def begin_step(path):
    witness.tell("step-begin", path)


def end_step(path, size):
    nonce = os.urandom(6).hex()
    witness.tell("step-end", path, nonce)
    return {"nonce": nonce, "ballast": os.urandom(size)}


def kept_step(path, results, value):
    witness.tell("step-kept", path, value["nonce"])
    if "/" not in path:
        results[path] = value["nonce"]


def end_item(ctx, path):
    ctx.state["sum"] = zlib.crc32(path.encode(), ctx.state.get("sum", 0))
    witness.tell("item-end", path)


def raises_now(ctx, path, times):
    """Whether it is to raise; that it does is counted in the state."""
    done = ctx.state.get(path, 0)
    if done < times:
        ctx.state[path] = done + 1
    return done < times, done


def hold(ctx, size):
    if "held" not in ctx.state:
        ctx.state["held"] = random.Random(size).randbytes(size)


def result(ctx, tag, results, further):
    held = zlib.crc32(ctx.state.get("held", b""))
    sums = {"sum": ctx.state.get("sum", 0), "held": held}
    return {"tag": tag, "steps": results, "further": further, **sums}


# ── plain tasks ──────────────────────────────────────────────────────────────────────────────


def take_time(path, seconds, size):
    begin_step(path)
    time.sleep(seconds)
    return end_step(path, size)


def carry_out(ctx, program, results, at=""):
    for kind, *given in program:
        if kind == "step":
            name, seconds, size = given
            value = ctx.step(name, take_time, at + name, seconds, size)
            kept_step(at + name, results, value)
        elif kind == "each":
            name, count, source, body = given
            for number in ctx.each(name, *source_of(source, count)):
                path = f"{at}{name}/{number}"
                witness.tell("item-begin", path)
                carry_out(ctx, body, results, path + "/")
                end_item(ctx, path)
            witness.tell("loop-end", at + name)
        elif kind == "nap":
            ctx.sleep(given[1], given[0])
        elif kind == "work":
            time.sleep(given[0])
        elif kind == "checkpoint":
            ctx.checkpoint()
        elif kind == "hold":
            hold(ctx, given[0])
        elif kind == "print":
            print("x" * given[0])
        elif kind == "raise":
            now, done = raises_now(ctx, given[0], given[1])
            if now:
                ctx.step(f"{given[0]}-{done}", str)  # keeps the count
                raise Flaky(given[0])
        else:
            raise Doomed("as planned")


def plain(ctx, tag: str, program: list, **further) -> dict:
    with witness.attempt(tag):
        results = {}
        carry_out(ctx, program, results)
        return result(ctx, tag, results, further)


# ── async tasks ──────────────────────────────────────────────────────────────────────────────


async def take_time_later(path, seconds, size):
    begin_step(path)
    await asyncio.sleep(seconds)
    return end_step(path, size)


async def carry_out_later(ctx, program, results, at=""):
    for kind, *given in program:
        if kind == "step":
            name, seconds, size = given
            value = await ctx.step(name, take_time_later, at + name, seconds, size)
            kept_step(at + name, results, value)
        elif kind == "each":
            name, count, source, body = given
            async for number in ctx.each(name, *source_of(source, count)):
                path = f"{at}{name}/{number}"
                witness.tell("item-begin", path)
                await carry_out_later(ctx, body, results, path + "/")
                end_item(ctx, path)
            witness.tell("loop-end", at + name)
        elif kind == "nap":
            await ctx.sleep(given[1], given[0])
        elif kind == "work":
            await asyncio.sleep(given[0])
        elif kind == "checkpoint":
            await ctx.checkpoint()
        elif kind == "hold":
            hold(ctx, given[0])
        elif kind == "print":
            print("x" * given[0])
        elif kind == "raise":
            now, done = raises_now(ctx, given[0], given[1])
            if now:
                await ctx.step(f"{given[0]}-{done}", str)
                raise Flaky(given[0])
        else:
            raise Doomed("as planned")


async def later(ctx, tag: str, program: list, **further) -> dict:
    with witness.attempt(tag):
        results = {}
        await carry_out_later(ctx, program, results)
        return result(ctx, tag, results, further)


for fn in (plain, later):
    for on_deploy in ("finish", "checkpoint"):
        task(name=f"{fn.__name__}-{on_deploy}", on_deploy=on_deploy, retries=5)(fn)


@task
def doomed(ctx, tag: str, program: list, **further) -> dict:
    with witness.attempt(tag):
        results = {}
        carry_out(ctx, program, results)
        return result(ctx, tag, results, further)


@task
def guard(ctx) -> None:
    """Waits all the while and never runs: a release that does not know it must be refused."""
    witness.tell("attempt-begin", "guard")
