"""``taskd backup`` and ``taskd restore``."""
