"""Draws the method in one picture, an SVG that follows the page's light and dark.

python docs/picture.py > picture.svg
"""

WIDTH = 360
LEFT, RIGHT, BOTH = (8, 164), (180, 164), (8, 336)  # x and width of a box
STYLE = """
  svg { color-scheme: light dark; }
  .gd { --ink: var(--color-foreground-primary, #1b1f24);
    --quiet: var(--color-foreground-secondary, #565d66);
    --line: var(--color-foreground-border, #878787);
    --box: var(--color-background-secondary, #f3f5f7);
    --new: #0072b2; --old: #d55e00; font-family: system-ui, sans-serif; }
  .gd text { fill: var(--ink); font-size: 13px; text-anchor: middle; }
  .gd .head { font-weight: 600; }
  .gd .quiet { fill: var(--quiet); font-size: 12px; }
  .gd rect { fill: var(--box); stroke: var(--line); }
  .gd .new { stroke: var(--new); } .gd .old { stroke: var(--old); }
  .gd path { fill: none; stroke-width: 2; } .gd rect.new, .gd rect.old { stroke-width: 2; }
  .gd marker path { stroke: none; } .gd .tip-new { fill: var(--new); }
  .gd .tip-old { fill: var(--old); }
"""
LABEL = (
    "The student learns from two batches in one pass: noised images of the experience, "
    "where it predicts the noise that was added, and noisy images from a source, where it "
    "predicts what the teacher predicts. The teacher is the student an experience ago."
)


def box(place: tuple[int, int], y: int, height: int, kind: str, *lines: str) -> str:
    """A box with a heading and lines below it.

    :param place: x and width.
    :param kind: ``new`` for the data of the experience, ``old`` for what is kept, or empty.
    """
    x, width = place
    middle, top = x + width // 2, y + (height - 17 * len(lines)) / 2 + 13
    texts = [
        f'<text x="{middle}" y="{top + 17 * i:g}" class="{"quiet" if i else "head"}">'
        f"{line}</text>"
        for i, line in enumerate(lines)
    ]
    rect = (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" class="{kind}"/>'
    )
    return "\n".join([rect, *texts])


def arrow(path: str, kind: str) -> str:
    """An arrow along an SVG path."""
    return f'<path d="{path}" class="{kind}" marker-end="url(#tip-{kind})"/>'


def tip(kind: str) -> str:
    """The head of an arrow."""
    return (
        f'<marker id="tip-{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" '
        f'markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" class="tip-{kind}"/></marker>'
    )


def svg() -> str:
    """The picture."""
    parts = [
        box(LEFT, 8, 62, "new", "New images", "of this experience"),
        box(RIGHT, 8, 62, "old", "Teacher", "the student of one", "experience ago, frozen"),
        box(LEFT, 104, 62, "new", "Noised", "noise added at a", "random timestep t"),
        box(
            RIGHT,
            104,
            62,
            "old",
            "Source",
            "noisy images: samples,",
            "noise or current images",
        ),
        box(BOTH, 200, 48, "", "Student", "one pass over both batches"),
        box(LEFT, 282, 62, "new", "Learn", "predict the noise", "that was added"),
        box(RIGHT, 282, 62, "old", "Remember", "predict what the", "teacher predicts"),
        box(
            BOTH,
            378,
            48,
            "",
            "loss = 1/n learn + (1 - 1/n) λ remember",
            "n: experiences so far",
        ),
        arrow("M90 70 V102", "new"),
        arrow("M90 166 V198", "new"),
        arrow("M90 248 V280", "new"),
        arrow("M90 344 V376", "new"),
        arrow("M262 70 V102", "old"),
        arrow("M262 166 V198", "old"),
        arrow("M262 248 V280", "old"),
        arrow("M262 344 V376", "old"),
        arrow("M344 39 H353 V313 H346", "old"),
    ]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 434" role="img" '
        f'aria-label="{LABEL}" class="gd">\n<style>{STYLE}</style>\n'
        f"<defs>{tip('new')}{tip('old')}</defs>\n{body}\n</svg>\n"
    )


if __name__ == "__main__":
    print(svg(), end="")
