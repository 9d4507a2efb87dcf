"""The two releases of the demo's app. r2 has only the file that differs from r1's."""
