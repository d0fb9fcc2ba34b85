"""Make text of settings safe to show in a terminal and in figures."""

from hashlib import sha256

_DIGITS = 8  # of the SHA-256 of a text that is cut


def printable(text: str, *, length: int) -> str:
    r"""Text in one line, of limited length, without control characters of a terminal.

    :param length: the length of the result; longer text is cut, and ends with dots and the
        first digits of its SHA-256, by which it stays apart from others that begin so.

    >>> printable("red \033[31m", length=20), printable("lambd=0.25, steps=10", length=19)
    ('red ?[31m', 'lambd... (130bb120)')
    """
    shown = "".join(sign if sign.isprintable() else "?" for sign in text)
    if len(shown) <= length:
        return shown
    digest = sha256(text.encode(errors="surrogatepass")).hexdigest()
    ending = f"... ({digest[:_DIGITS]})"
    return shown[: length - len(ending)] + ending
