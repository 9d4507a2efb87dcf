"""``taskd demo``: its options; the demo itself is ``taskd.demo``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace


def add_demo(parser: ArgumentParser) -> None:
    """``demo [--keep] [--plain]``"""
    parser.description = (
        "A daemon in a temporary directory, a dozen real tasks and a shell command, a deploy in "
        "their middle, and a table of what happened, counted outside the daemon. Exits 1 if "
        "anything was lost, repeated or wrong. Takes under a minute."
    )
    parser.add_argument("--keep", action="store_true", help="keep the directory, and say where")
    parser.add_argument(
        "--plain", action="store_true", help="print lines, also on a terminal; do not redraw"
    )


def do_demo(args: Namespace) -> int:
    """Run the demo; the exit status."""
    import asyncio

    from taskd.demo.run import main

    return asyncio.run(main(args.keep, args.plain))
