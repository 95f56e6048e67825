"""What the errors of libraries say, for messages of one line."""


def first_line(error: Exception) -> str:
    """The first line that says something; the kind of error where none does."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
