"""A deploy from the request to the exec, and what follows it: hooks, draining."""
