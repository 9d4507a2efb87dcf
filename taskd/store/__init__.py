"""Everything at rest: the Store protocol (``api``), SQLite behind it, and the writer thread."""
