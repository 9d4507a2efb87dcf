"""``python -m contrib.storm``: raise a storm; exit 0 if no promise was broken, else 1."""

from __future__ import annotations

import sys

from contrib.storm import options, report, storm


def main() -> int:
    given = options.parse()
    storm.end_in_order()
    print(f"seed {given.seed}", flush=True)
    outcome = storm.run(given)
    text = report.as_markdown(outcome)
    print(text)
    if given.report is not None:
        whole = report.as_json(outcome) if given.report.endswith(".json") else text
        with open(given.report, "w", encoding="utf-8") as file:
            file.write(whole)
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
