"""The two releases of the demo's app. r2 has only the files that differ from r1's."""
