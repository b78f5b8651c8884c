"""Text from a database or a file, in which nothing is a command to whatever shows it."""


def plain(text: str) -> str:
    """A name without control characters, which a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
