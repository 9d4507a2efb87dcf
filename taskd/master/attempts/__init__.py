"""Which waiting task goes to which worker, and how each attempt ends."""
