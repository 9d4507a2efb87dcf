"""The verbs of ``taskctl``, one module for each family, and what they share."""
