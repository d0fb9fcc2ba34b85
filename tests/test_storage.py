"""Files that are whole or absent, and the cache."""

import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from avalanche_gd.storage import (
    cache_folder,
    cached,
    content_digest,
    expanded,
    held,
    remove_leftovers,
    write_folder,
    write_text,
    write_whole,
)
from tests.helpers.bits import same_bits, truncate

pytestmark = pytest.mark.usefixtures("empty_cache")


def content() -> dict[str, torch.Tensor]:
    return {
        "images": torch.arange(24, dtype=torch.uint8).view(2, 3, 4),
        "weights": torch.linspace(-1, 1, 5),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "steps": torch.tensor(7),
        "nothing": torch.empty(0, 3),
    }


def never() -> dict[str, torch.Tensor]:
    raise AssertionError("made anew")


def test_what_is_made_is_kept_and_read_back_to_the_bit():
    assert same_bits(cached("thing", ["key"], content), content())
    assert same_bits(cached("thing", ["key"], never), content())
    (file,) = cache_folder().iterdir()
    assert file.name.startswith("thing-")
    assert file.stat().st_mode & 0o777 == 0o644  # others may share the folder


def test_what_is_read_back_may_be_changed_without_changing_the_file():
    cached("thing", ["key"], content)
    cached("thing", ["key"], never)["weights"].zero_()
    assert same_bits(cached("thing", ["key"], never), content())


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="needs Linux's /proc")
def test_what_is_read_back_is_mapped_and_not_copied():
    def maps() -> str:
        return Path("/proc/self/maps").read_text()

    made = cached("thing", ["key"], content)
    (file,) = cache_folder().iterdir()
    assert str(file) not in maps()
    read = cached("thing", ["key"], never)
    assert str(file) in maps()
    assert same_bits(read, made)


@pytest.mark.parametrize(
    "other",
    [
        ["b", 1, torch.zeros(4)],
        ["a", 2, torch.zeros(4)],
        ["a", "1", torch.zeros(4)],
        ["a", 1, torch.ones(4)],
        ["a", 1, torch.zeros(4, dtype=torch.int32)],
        ["a", 1, torch.zeros(2, 2)],
        ["a", 1],
        ["a", 1, torch.zeros(4), None],
    ],
)
def test_another_key_is_made_anew(other):
    key = ["a", 1, torch.zeros(4)]
    cached("thing", key, content)
    cached("thing", iter(key), never)
    with pytest.raises(AssertionError, match="made anew"):
        cached("thing", other, never)
    with pytest.raises(AssertionError, match="made anew"):
        cached("other", key, never)


def test_tensors_in_a_key_are_told_apart_by_their_values_and_not_by_their_memory():
    matrix = torch.arange(6.0).view(2, 3)
    for strided in (matrix.T, matrix.flatten()[::2]):
        compact = strided.clone(memory_format=torch.contiguous_format)
        cached("thing", [strided], content)
        cached("thing", [compact], never)


def test_a_flipped_byte_is_never_used():
    cached("thing", ["key"], content)
    (file,) = cache_folder().iterdir()
    whole = file.read_bytes()
    unnoticed = 0
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x04]) + whole[place + 1 :])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert same_bits(cached("thing", ["key"], content), content())
        assert all(len(str(w.message).splitlines()) == 1 for w in caught)
        unnoticed += not caught
    assert unnoticed == 0
    assert same_bits(cached("thing", ["key"], never), content())


def swap(file: Path) -> None:
    cached("thing", ["another key"], lambda: {"weights": torch.zeros(5)})
    (other,) = set(file.parent.iterdir()) - {file}
    other.replace(file)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        swap,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"\xff" * 64),
        lambda file: torch.save(content(), file),
    ],
)
def test_a_file_that_is_not_what_was_kept_is_a_warning_and_made_anew(damage):
    cached("thing", ["key"], content)
    (file,) = cache_folder().iterdir()
    damage(file)
    with pytest.warns(UserWarning, match="cannot use the cached .*; it is made") as caught:
        assert same_bits(cached("thing", ["key"], content), content())
    assert len(caught) == 1 and len(str(caught[0].message).splitlines()) == 1
    assert same_bits(cached("thing", ["key"], never), content())
    assert list(cache_folder().iterdir()) == [file]


def test_two_that_make_it_at_once_are_both_right():
    def slower():
        assert same_bits(cached("thing", ["key"], content), content())
        return content()

    assert same_bits(cached("thing", ["key"], slower), content())
    assert same_bits(cached("thing", ["key"], never), content())
    assert len(list(cache_folder().iterdir())) == 1


def test_what_cannot_be_made_is_not_kept():
    with pytest.raises(AssertionError):
        cached("thing", ["key"], never)
    assert not cache_folder().exists()


def test_a_cache_folder_that_cannot_be_written_is_a_warning():
    cache_folder().write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="set AVALANCHE_GD_CACHE to a folder") as caught:
        assert same_bits(cached("thing", ["key"], content), content())
    assert len(caught) == 1 and len(str(caught[0].message).splitlines()) == 1


def test_a_full_disk_is_a_warning_and_leaves_nothing():
    cache_folder().mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.warns(UserWarning, match="set AVALANCHE_GD_CACHE to a folder"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            made = cached("thing", ["key"], content)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert same_bits(made, content())
    assert not list(cache_folder().iterdir())


def test_text_is_written_where_the_locale_has_no_such_letters(tmp_path):
    code = "import sys; from avalanche_gd.runs.errors import quiet; quiet(); "
    code += "from avalanche_gd.storage import write_text; from pathlib import Path; "
    code += "print('FID \\u2193'); write_text(Path(sys.argv[1]), 'FID \\u2193')"
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "card.md")],
        env=os.environ | locale,
        capture_output=True,
        check=True,
        text=True,
    )
    assert (tmp_path / "card.md").read_bytes() == "FID \u2193".encode()
    assert done.stdout == "FID \\u2193\n"


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path):
    file = tmp_path / "folder" / "file.txt"
    write_text(file, "old")

    def fail(beside: Path) -> None:
        beside.write_text("half of the ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(file, fail)
    assert file.read_text() == "old"
    write_text(file, "new")
    assert file.read_text() == "new"
    assert list(file.parent.iterdir()) == [file]


def test_what_is_written_is_on_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace", "rename"):
        call = getattr(os, name)

        def noted(*arguments, name=name, call=call):
            done.append(name)
            return call(*arguments)

        monkeypatch.setattr(os, name, noted)
    write_text(tmp_path / "a.txt", "text")
    assert done == ["fsync", "replace"]
    done.clear()

    def two(beside):
        (beside / "a").write_text("a")
        (beside / "b").write_text("b")

    write_folder(tmp_path / "model", two)
    assert done == ["fsync", "fsync", "rename"]


LEFT = ".a.avalanche-gd-0123456789abcdef.txt"
LEFT_FOLDER = ".model.avalanche-gd-0123456789abcdef"


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    (tmp_path / LEFT).write_text("half")
    (tmp_path / LEFT_FOLDER).mkdir()
    (tmp_path / LEFT_FOLDER / "weights").write_text("half")
    (tmp_path / ".mine").write_text("not of a writer")
    write_text(tmp_path / "b.txt", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {".mine", "b.txt"}


def test_what_is_being_written_is_left_alone(tmp_path):
    (tmp_path / LEFT).write_text("half")
    with held(tmp_path / LEFT):
        write_text(tmp_path / "b.txt", "whole")
        assert (tmp_path / LEFT).exists()
    seen = []

    def write(beside):
        beside.write_text("first")
        write_text(tmp_path / "c.txt", "whole")  # which looks for what was left
        seen.append(beside.exists())

    write_whole(tmp_path / "d.txt", write)
    assert seen == [True] and (tmp_path / "d.txt").read_text() == "first"


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "model"

    def writing(text):
        def write(beside):
            (beside / "deep").mkdir()
            (beside / "deep" / "a").write_text(text)

        return write

    def failing(beside):
        (beside / "a").write_text("half")
        raise OSError(28, "No space left on device")

    write_folder(folder, writing("first"))
    write_folder(folder, writing("second"))
    with pytest.raises(ValueError, match=r"cannot write .*model: No space left on device"):
        write_folder(folder, failing)
    assert (folder / "deep" / "a").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 9 vs 8"),
    ],
)
def test_a_file_that_cannot_be_written_is_one_line_and_leaves_the_old_one(tmp_path, error):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write(beside):
        beside.write_text("half")
        raise error

    with pytest.raises(ValueError, match=f"cannot write {path}: .*(space|full)"):
        write_whole(path, write)
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_where_a_folder_belongs_is_one_line(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(ValueError, match=r"cannot write .*a/b.txt: "):
        write_text(tmp_path / "a" / "b.txt", "text")


@pytest.mark.parametrize(
    "other",
    [
        {"a": 1, "b": [torch.zeros(2), (1.5, "x")], "c": None},
        {"a": 1, "b": [torch.zeros(2), [1.5, "x"]]},
        {"a": 1, "b": [torch.zeros(2), 1.5, "x"]},
        {"a": True, "b": [torch.zeros(2), (1.5, "x")]},
        {"a": 1, "b": [torch.zeros(2), (1.5000000000000002, "x")]},
        {"a": 1, "b": [torch.zeros(2, dtype=torch.int32), (1.5, "x")]},
        {"a": 1, "b": [torch.tensor([0.0, 1e-45]), (1.5, "x")]},
        {"b": [torch.zeros(2), (1.5, "x")], "a": 1},
    ],
)
def test_a_digest_tells_contents_apart(other):
    content = {"a": 1, "b": [torch.zeros(2), (1.5, "x")]}
    copy = {"a": 1, "b": [torch.zeros(4)[::2], (1.5, "x")]}
    assert content_digest(content) == content_digest(copy) != content_digest(other)


def test_a_first_tilde_is_a_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    expected = {"~": "/home/me", "~/a~": "/home/me/a~", "a/~": "a/~", "": "."}
    assert {given: str(expanded(given)) for given in expected} == expected
    with pytest.raises(ValueError, match=r"^~nobody-here/a: ~nobody-here is no user here"):
        expanded("~nobody-here/a")


def test_an_older_folder_takes_its_place_again_if_the_new_one_cannot(tmp_path, monkeypatch):
    folder = tmp_path / "a model.v2"
    write_folder(folder, lambda beside: (beside / "a").write_text("first"))
    rename, calls = os.rename, []

    def fails_second(*paths, **options):
        calls.append(paths)
        if paths[1] == folder and len(calls) == 2:
            raise OSError(28, "No space left on device")
        return rename(*paths, **options)

    with monkeypatch.context() as patch:
        patch.setattr("os.rename", fails_second)
        with pytest.raises(ValueError, match="No space left"):
            write_folder(folder, lambda beside: (beside / "a").write_text("second"))
    assert (folder / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a model.v2"]


def test_an_older_folder_is_there_again_after_a_kill_between_the_two(tmp_path):
    code = """
import os, sys
from pathlib import Path
from avalanche_gd.storage import write_folder
rename = os.rename
def killed(*paths, **options):
    if calls: os._exit(1)
    calls.append(paths)
    return rename(*paths, **options)
folder, calls = Path(sys.argv[1]), []
write_folder(folder, lambda beside: (beside / "a").write_text("first"))
calls, os.rename = [], killed
write_folder(folder, lambda beside: (beside / "a").write_text("second"))
"""
    folder = tmp_path / "a model.v2"
    command = [sys.executable, "-c", code, str(folder)]
    assert subprocess.run(command, check=False).returncode == 1
    assert not folder.exists() and len(list(tmp_path.iterdir())) == 2
    write_text(tmp_path / "b.txt", "other")
    assert (folder / "a").read_text() == "first"
    assert {path.name for path in tmp_path.iterdir()} == {"a model.v2", "b.txt"}


def test_hidden_folders_of_others_are_left_alone(tmp_path):
    names = [".results-0123456789abcdef", ".results.0123456789abcdef", ".avalanche-gd-x"]
    for name in names:
        (tmp_path / name).mkdir()
    write_folder(tmp_path / "model", lambda beside: (beside / "a").write_text("a"))
    assert {path.name for path in tmp_path.iterdir()} == {*names, "model"}


def test_the_cache_may_be_below_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AVALANCHE_GD_CACHE", "~/cache")
    assert cache_folder() == tmp_path / "cache"


def test_another_process_does_not_disturb_a_folder_that_is_replaced(tmp_path, monkeypatch):
    folder, rename = tmp_path / "model", os.rename
    write_folder(folder, lambda beside: (beside / "a").write_text("first"))

    def looking(*paths, **options):
        rename(*paths, **options)
        remove_leftovers(tmp_path)  # as each writer does first

    with monkeypatch.context() as patch:
        patch.setattr("os.rename", looking)
        write_folder(folder, lambda beside: (beside / "a").write_text("second"))
    assert (folder / "a").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
