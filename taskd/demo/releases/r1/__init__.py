"""The first release of the demo's app."""
