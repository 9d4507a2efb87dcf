"""``taskd install`` and ``taskd uninstall``: look at the machine, decide, change it."""
