"""The handoff: the last act of the old image, the first of the new one, and its trial."""
