"""Which cuts of a recorded run are looked at, and in which variants. Seeded."""

from __future__ import annotations

import random
from collections.abc import Iterator

from disk import Choice, Kept, Mixed, Sizes, Torn
from recording import Recording

VARIANTS = ("lost", "kept", "sizes", "torn", "mixed", "mixed 2", "mixed 3")


def choice(variant: str, cut: int, seed: int) -> Choice:
    """What is left in that variant of that cut; the same for the same seed."""
    chance = random.Random(f"{seed} {cut} {variant}")
    match variant.split()[0]:
        case "lost":
            return Choice()
        case "kept":
            return Kept()
        case "sizes":
            return Sizes()
        case "torn":
            return Torn(chance)
        case _:
            return Mixed(chance)


def states(
    recording: Recording, seed: int, sample: int | None
) -> Iterator[tuple[int, str, dict[str, bytes | None]]]:
    """(cut, variant, what is left): all there are, or as many as ``sample``, chosen by the seed.

    Half of a sample are cuts right after what is rare: a name, a size or a hole that changed.
    """
    every = [(cut, variant) for cut in recording.cuts() for variant in VARIANTS]
    rare = [(cut, variant) for cut in recording.rare_cuts() for variant in VARIANTS]
    chosen = set(every)
    if sample is not None:
        chance = random.Random(seed)
        chosen = set(chance.sample(rare, min(sample // 2, len(rare))))
        chosen |= set(chance.sample(every, min(sample - len(chosen), len(every))))
    for cut, disk in recording.play():
        for variant in VARIANTS:
            if (cut, variant) in chosen:
                yield cut, variant, disk.left(choice(variant, cut, seed))
