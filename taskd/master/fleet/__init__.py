"""Revisions, their zygotes and their workers: started, heard, and ended."""
