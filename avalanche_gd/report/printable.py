"""Make text of settings safe to show in a terminal and in figures."""


def printable(text: str, *, length: int) -> str:
    r"""Text in one line, of limited length, without control characters of a terminal.

    :param length: the length of the result; longer text is cut, and ends with dots.

    >>> printable("red \033[31m", length=20), printable("lambd=0.25", length=8)
    ('red ?[31m', 'lambd...')
    """
    shown = "".join(sign if sign.isprintable() else "?" for sign in text)
    return shown if len(shown) <= length else f"{shown[: length - 3]}..."
