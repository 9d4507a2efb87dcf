"""How strong a storm is, and of what: the command line and the usual rates."""

from __future__ import annotations

import argparse
import random
from typing import NamedTuple

RATES = {
    "kill master": 11.0,
    "kill zygote": 6.0,
    "kill worker": 125.0,
    "kill all": 0.7,
    "restart": 0.7,
    "stop master": 3.0,
    "stop zygote": 4.0,
    "stop worker": 15.0,
    "deploy": 7.0,
    "reload": 3.0,
    "hangup": 2.0,
    "rollback": 2.0,
    "drain": 1.0,
    "deploy of a bad release": 2.0,
    "reload of a bad release": 1.0,
    "hangup with a bad release": 1.0,
    "cancel": 12.0,
    "cut connections": 12.0,
    "kill client": 3.0,
    "fill disk": 1.5,
    "submission": 210.0,
}
"""Each kind of action and how often it comes, a minute, on average."""


class Options(NamedTuple):
    """``minutes`` is how long the storm rages; what follows takes longer the more is under way.
    ``state``: a directory that is kept, or None for one of its own. ``report``: a file, or None."""

    seed: str
    minutes: float
    state: str | None
    report: str | None
    rates: dict[str, float]
    disk: int
    """Bytes of the file system of state and logs."""

    busy: int = 0
    """Loops that take the machine's time meanwhile."""

    lose: float = 0.0
    """The part of all commits whose answer the daemon's store loses."""


def parse(words: list[str] | None = None) -> Options:
    """From the command line; exits 2 on what it cannot understand."""
    parser = argparse.ArgumentParser("python -m contrib.storm", description=__doc__)
    parser.add_argument("--seed", help="of the sequence of actions (default: a random one)")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long (default: 2)")
    parser.add_argument("--state", metavar="DIR", help="keep everything in this new directory")
    parser.add_argument(
        "--report", metavar="FILE", help="write the report here, as Markdown or .json"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies all rates")
    parser.add_argument(
        "--rate",
        metavar="KIND=PER_MINUTE",
        action="append",
        default=[],
        help="how often one kind of action comes; kinds: " + ", ".join(RATES),
    )
    parser.add_argument(
        "--busy", type=int, default=0, metavar="N", help="with N busy loops beside it"
    )
    parser.add_argument(
        "--lose", type=float, default=0.0, metavar="PART",
        help="lose the answers of that part of all commits, say 0.1",
    )  # fmt: skip
    given = parser.parse_args(words)
    rates = {kind: rate * given.scale for kind, rate in RATES.items()}
    for word in given.rate:
        kind, _, rate = word.partition("=")
        if kind not in RATES or not rate.replace(".", "", 1).isdigit():
            parser.error(f"--rate {word}: expected one of {', '.join(RATES)} = a number")
        rates[kind] = float(rate)
    disk = disk_for(given.minutes, rates["submission"])
    seed = given.seed or f"{random.SystemRandom().randrange(2**32)}"
    return Options(
        seed, given.minutes, given.state, given.report, rates, disk, given.busy, given.lose
    )


def disk_for(minutes: float, submissions: float) -> int:
    """Bytes that all that a storm leaves behind will not fill."""
    return (160 << 20) + int(minutes * submissions * 40_000)
