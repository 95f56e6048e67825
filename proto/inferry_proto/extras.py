"""What is said where a part of Inferry is not installed: the same words in every program."""


def how_to_install(*extras: str) -> str:
    """The command that installs what these extras bring. No package index has Inferry, so it names a checkout."""
    return f"pip install '.[{','.join(extras)}]' in a checkout of Inferry"
