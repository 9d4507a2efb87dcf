"""The daemon as its service manager sees it: status, checks, the stop."""
