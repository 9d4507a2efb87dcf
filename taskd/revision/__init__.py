"""Releases on disk and the revisions the master knows."""
