"""A fixture of several folders; and this folder is on the module path, for what they share."""

from client_daemon import gate

__all__ = ["gate"]
