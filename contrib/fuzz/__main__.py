"""``python -m contrib.fuzz [TARGET…]``: fuzz what taskd reads. Exit 0: nothing was found.

From a clone, with taskd installed (README): without TARGET all of them in turn, ``--list`` names
them. Two engines:

* with `atheris` installed (``pip install atheris``; it brings libFuzzer, and is needed for nothing
  else here) and one TARGET: guided by coverage, until Ctrl-C or a finding. What follows ``--`` goes
  to libFuzzer: ``python -m contrib.fuzz slot -- -max_total_time=600 corpus/``
* else, or with ``--random``: mutations of recorded samples in a plain loop, on any Python:
  ``python -m contrib.fuzz --random --seconds 60 --seed 7``. The same seed does the same again.

What was found is written to ``crash-TARGET-…`` here, and
``python -m contrib.fuzz TARGET --replay FILE`` runs that alone.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import sys
import time
import traceback
from pathlib import Path
from random import Random

from contrib.fuzz.mutate import mutated
from contrib.fuzz.targets import TARGETS


def main() -> int:
    words, more = sys.argv[1:], []
    if "--" in words:
        at = words.index("--")
        words, more = words[:at], words[at + 1 :]
    given = _parser().parse_args(words)
    if given.list:
        print("\n".join(TARGETS))
        return 0
    names = given.targets or list(TARGETS)
    if given.replay:
        TARGETS[names[0]].run(Path(given.replay).read_bytes())
        return 0
    has_atheris = importlib.util.find_spec("atheris") is not None
    if has_atheris and not given.random and len(given.targets) == 1:
        _guided(names[0], more)
        return 0
    found = [_loop(name, given.seed, given.seconds / len(names), given.runs) for name in names]
    return 1 if any(found) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m contrib.fuzz", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("targets", metavar="TARGET", nargs="*", choices=[*TARGETS, []])
    parser.add_argument("--list", action="store_true", help="name the targets")
    parser.add_argument("--random", action="store_true", help="the plain loop, also with atheris")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets (default: 60)")
    parser.add_argument("--runs", type=int, default=None, help="for each target, instead of a time")
    parser.add_argument("--seed", type=int, default=None, help="of the plain loop")
    parser.add_argument("--replay", metavar="FILE", help="run TARGET on that alone")
    return parser


def _guided(name: str, more: list[str]) -> None:
    import atheris

    target = TARGETS[name]
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *more], target.run)
    atheris.Fuzz()


def _loop(name: str, seed: int | None, seconds: float, runs: int | None) -> bool:
    """Whether something was found."""
    seed = time.time_ns() if seed is None else seed
    target, random, done = TARGETS[name], Random(seed), 0
    until = time.monotonic() + seconds
    while done < runs if runs is not None else time.monotonic() < until:
        raw = mutated(target.samples, random)
        try:
            target.run(raw)
        except Exception:
            path = Path(f"crash-{name}-{hashlib.sha256(raw).hexdigest()[:12]}")
            path.write_bytes(raw)
            print(f"{name}: found after {done:,} runs with --seed {seed}: {path}", file=sys.stderr)
            traceback.print_exc()
            return True
        done += 1
    print(f"{name}: {done:,} runs with --seed {seed}, nothing found", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
