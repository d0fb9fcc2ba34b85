"""docs/extending.md: each addition, as it stands there, is run."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
FILES = dict(
    re.findall(r"`([\w/]+\.(?:py|yaml))`:\n\n```\w+\n(.*?)```", PAGE.read_text(), re.S)
)
COMMANDS = re.findall(r"^    avalanche-gd (.*)$", PAGE.read_text(), re.M)
