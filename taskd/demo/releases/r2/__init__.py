"""The second release of the demo's app: as the first, and says more about its progress."""
