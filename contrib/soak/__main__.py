"""``python -m contrib.soak --hours 4``: exit 0 if every promise was kept and nothing grew."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from contrib.soak import growth
from contrib.soak.sampling import Sampler
from contrib.storm import report, storm
from contrib.storm.options import RATES, Options, disk_for
from contrib.storm.place import Place

SLOW = {
    "kill master": 0.017,
    "kill all": 0.0,
    "restart": 0.0,
    "kill zygote": 0.05,
    "kill worker": 2.0,
    "stop master": 0.05,
    "stop zygote": 0.05,
    "stop worker": 0.5,
    "deploy": 0.3,
    "reload": 0.1,
    "hangup": 0.05,
    "rollback": 0.05,
    "drain": 0.05,
    "deploy of a bad release": 0.1,
    "reload of a bad release": 0.05,
    "hangup with a bad release": 0.05,
    "cancel": 1.0,
    "cut connections": 0.5,
    "kill client": 0.05,
    "fill disk": 0.02,
    "submission": 40.0,
}
"""A minute. The master is killed once an hour: what it leaks would be gone with it."""

assert SLOW.keys() == RATES.keys()


def main() -> int:
    parser = argparse.ArgumentParser("python -m contrib.soak", description=__doc__)
    parser.add_argument("--seed", help="of the sequence of actions (default: a random one)")
    parser.add_argument("--hours", type=float, default=4.0, help="how long (default: 4)")
    parser.add_argument("--every", type=float, help="seconds between samples (default: by hours)")
    parser.add_argument("--state", metavar="DIR", help="keep everything in this new directory")
    parser.add_argument("--report", metavar="FILE", help="write the report to it")
    given = parser.parse_args()
    minutes = given.hours * 60
    every = given.every or max(1.0, minutes * 60 / 1000)
    seed = given.seed or f"{random.SystemRandom().randrange(2**32)}"
    print(f"seed {seed}", flush=True)
    disk = disk_for(minutes, SLOW["submission"])
    options = Options(seed, minutes, given.state, given.report, SLOW, disk)
    return _soak(options, every)


def _soak(options: Options, every: float) -> int:
    samplers: list[Sampler] = []

    @contextmanager
    def sampling(place: Place) -> Iterator[None]:
        sampler = Sampler(place, every)
        samplers.append(sampler)
        sampler.start()
        try:
            yield
        finally:
            sampler.end()

    outcome = storm.run(options, sampling)
    samples = samplers[0].samples
    rows = growth.judge(samples)
    text = report.as_markdown(outcome, "soak")
    text += f"\n{len(samples)} samples of the master and its files:\n\n{growth.table(rows)}"
    print(text)
    if options.report is not None:
        with open(options.report, "w", encoding="utf-8") as file:
            file.write(text)
    return 1 if outcome.violations or any(row.grew for row in rows) else 0


if __name__ == "__main__":
    storm.end_in_order()
    sys.exit(main())
