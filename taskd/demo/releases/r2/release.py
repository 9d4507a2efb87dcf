"""New in this release: tasks say how many bytes they have read, and which file is at hand."""

NAME = "r2"


def note(read: int, file: str) -> str:
    """What a task says of its progress besides the count."""
    return f"{read / 1e6:.1f} MB, {file}"
