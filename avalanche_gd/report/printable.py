"""Text of settings where it is shown as it is: in a terminal and in figures."""


def printable(text: str, *, length: int) -> str:
    r"""Text in one line, without what a terminal would obey, and not too long.

    :param length: of the result; longer text is cut, and ends with dots.

    >>> printable("red \033[31m", length=20), printable("lambd=0.25", length=8)
    ('red ?[31m', 'lambd...')
    """
    shown = "".join(sign if sign.isprintable() else "?" for sign in text)
    return shown if len(shown) <= length else f"{shown[: length - 3]}..."
