"""A new image of the master: its first stage, and the trial of it before the exec.

Both are entry points of a release's own taskd; they sit above the master and are imported by
nothing. This file imports nothing, so that whatever can fail to import fails where it is caught.
"""
