"""The handoff: what crosses an exec, how, and which release a start uses."""
