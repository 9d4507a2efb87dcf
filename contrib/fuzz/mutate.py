"""Bytes that are nearly right: what finds more than noise does.

Pure; the randomness is the caller's.
"""

from __future__ import annotations

from random import Random

INTERESTING = [
    b"\x00",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x80" * 80,  # arrays within each other
    b"\x81" * 80,
    b"\xa1\x61a" * 80,  # maps within each other
    b"\x9f",  # indefinite lengths
    b"\xbf",
    b"\x5f",
    b"\x7f",
    b"\xf9\x7e\x00",  # NaN
    b"\xfb\x7f\xf0" + bytes(6),  # infinity
    b"\xc2\x49\x01" + bytes(8),  # a bignum
    b"\xc3\x59\xff\xff",
    b"\x62\xc3\x28",  # invalid UTF-8
    b"\x1b" + b"\xff" * 8,  # the largest int
    b"\x3b" + b"\xff" * 8,  # the smallest
    b"\x9b" + b"\xff" * 8,  # arrays, maps and strings of 2**64 - 1
    b"\xbb" + b"\xff" * 8,
    b"\x5b" + b"\xff" * 8,
    b"\xf7",  # undefined, and simple values
    b"\xf8\xff",
    *(bytes([0xC0 | tag]) for tag in range(24)),
    *(b"\xd8" + bytes([tag]) for tag in (24, 25, 28, 29, 30, 35, 36, 37, 43, 100, 255)),
    *(b"\xd9" + tag.to_bytes(2, "big") for tag in (256, 258, 260, 1004, 43000, 54101, 54104)),
    b"\xda\xff\xff\xff\xff",
    b"\xdb" + b"\xff" * 8,
]


def mutated(samples: list[bytes], random: Random) -> bytes:
    """One of ``samples`` after a few accidents, or now and then plain noise."""
    if random.random() < 0.05:
        return random.randbytes(random.randrange(200))
    raw = bytearray(random.choice(samples))
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        _accident(raw, samples, random)
    return bytes(raw)


def _accident(raw: bytearray, samples: list[bytes], random: Random) -> None:
    at = random.randrange(len(raw) + 1)
    end = min(len(raw), at + random.choice((1, 1, 2, 4, 16, 256)))
    match random.randrange(7):
        case 0 if at < len(raw):
            raw[at] ^= 1 << random.randrange(8)
        case 1 if at < len(raw):
            raw[at] = random.randrange(256)
        case 2:
            del raw[at:end]
        case 3:
            raw[at:at] = raw[at:end]
        case 4:
            raw[at:at] = random.choice(INTERESTING)
        case 5:
            piece = random.choice(INTERESTING)
            raw[at : at + len(piece)] = piece
        case _:
            other = random.choice(samples)
            begin = random.randrange(len(other) + 1)
            raw[at:end] = other[begin : begin + random.choice((1, 4, 16, 256))]
