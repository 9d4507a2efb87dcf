"""The entries by which an image of another version starts this one: see ``handoff``.

They sit above everything and are imported by nothing. This file imports nothing, so that whatever
can fail to import fails where it is caught.
"""
