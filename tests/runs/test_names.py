"""What benchmarks and methods may be called."""

from pathlib import Path

import pytest

from avalanche_gd.runs.composition import method_names
from avalanche_gd.runs.names import check_name

BENCHMARKS = Path(check_name.__globals__["__file__"]).parents[1] / "conf" / "benchmark"


@pytest.mark.parametrize(
    "name",
    [
        *method_names(),
        *(path.stem for path in BENCHMARKS.glob("*.yaml")),
        *("a", "_", "0", "v1.2", "My-Method", "x" * 80),
    ],
)
def test_a_name_of_letters_digits_and_the_like_is_one(name):
    assert check_name("method.name", name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", ".a", "-a", "a/b", "../a", "/a", "a\\b", "a b", "a\n", "\na"),
        *("a\0", "a%", "a$", "a{", "~", "é", "\N{ARABIC-INDIC DIGIT ONE}", "x" * 81),
        *("???", "${a}", None, 1, 1.5, True, ["a"], {"a": 1}, b"a"),
    ],
)
def test_another_one_is_refused_in_one_line(name):
    with pytest.raises(ValueError, match=r"method\.name must be 1 to 80 of the") as caught:
        check_name("method.name", name)
    assert len(str(caught.value).splitlines()) == 1
