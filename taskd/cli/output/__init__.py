"""What the commands print with: text for people, JSON for programs, progress bars, streams."""
