"""``taskd run`` in the background or as a container's first process, and ``taskd confirm``."""
