"""The one wait point of the master, and what every part of it stands on. Knows no task."""
