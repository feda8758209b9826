"""The operator's module: found, imported and made, or refused with one line that says why."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from notifyd.config import ConfigurationError
from notifyd.config_hub import Filter
from notifyd.hub.filtering import load_filter

GOOD = """
class Made:
    def preprocess(self, event): return {}
class Group:
    Inner = Made
def function(): return Made()
class Half:
    preprocess = None
    def characterise(self, event): pass
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Gives ``write(text)``, which makes the module ``mine`` and a package ``pack`` with the same in ``pack.inner``."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str) -> None:
        (tmp_path / "mine.py").write_text(text)
        (tmp_path / "pack").mkdir()
        (tmp_path / "pack" / "__init__.py").write_text("")
        (tmp_path / "pack" / "inner.py").write_text(text)

    yield write
    for name in ("mine", "pack", "pack.inner"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("factory", ["mine:Made", "mine:function", "mine:Group.Inner", "mine:Half", "pack.inner:Made"])
def test_the_factory_makes_the_object(write: Callable[[str], None], factory: str) -> None:
    """A class or a function, in a module or a package."""
    write(GOOD)
    made = load_filter(Filter(factory=factory))
    assert type(made).__module__ == factory.split(":")[0]


def reason(factory: str, blocking: bool = False) -> str:
    """Gives the line with which a filter is refused."""
    with pytest.raises(ConfigurationError) as caught:
        load_filter(Filter(factory=factory, blocking=blocking), "/etc/hub.toml")
    line = str(caught.value)
    assert line.startswith("/etc/hub.toml: filter.factory: ")
    assert "\n" not in line
    assert caught.value.__cause__ is None
    return line.removeprefix("/etc/hub.toml: filter.factory: ")


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("nowhere:x", "nowhere cannot be imported: ModuleNotFoundError: No module named 'nowhere'; what it needs"),
        ("pack.no:x", "pack.no cannot be imported: ModuleNotFoundError: No module named 'pack.no'"),
        ("mine.no:x", "mine.no cannot be imported: ModuleNotFoundError: No module named 'mine.no'"),
        ("mine..no:x", "mine..no cannot be imported: ModuleNotFoundError"),
        ("mine:nothing", "mine has no nothing: AttributeError"),
        ("mine:Made.x", "mine has no Made.x: AttributeError"),
        ("mine:Made.", "mine has no Made.: AttributeError"),
    ],
)  # fmt: skip
def test_a_name_that_leads_nowhere_is_refused(write: Callable[[str], None], factory: str, expected: str) -> None:
    """The reason has the part of it that is wrong."""
    write(GOOD)
    assert reason(factory).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import nowhere", "mine cannot be imported: ModuleNotFoundError: No module named 'nowhere' ("),
        ("\nraise ValueError('no\\nserver')", "mine cannot be imported: ValueError: no server ("),
        ("import sys\nsys.exit('bye')", "mine cannot be imported: SystemExit: bye ("),
        ("raise KeyboardInterrupt", "mine cannot be imported: KeyboardInterrupt ("),
        ("raise GeneratorExit", "mine cannot be imported: GeneratorExit ("),
        ("def make(:", "mine cannot be imported: SyntaxError: invalid syntax (mine.py, line 1)"),
        ("def f(): f()\nf()", "mine cannot be imported: RecursionError: maximum recursion depth exceeded"),
        ("class E(Exception):\n def __str__(self): raise self\nraise E", "mine cannot be imported: an exception that"),
        ("make = 5", "mine:make cannot be called: TypeError: 'int' object is not callable"),
        ("def make(x): pass", "mine:make cannot be called: TypeError: make() missing 1 required"),
        ("def make(): exit(3)", "mine:make cannot be called: SystemExit: 3 ("),
        ("def make(): pass", "what mine:make gives has neither preprocess nor characterise"),
        ("async def make(): pass", "what mine:make gives has to be waited for"),
        ("class make:\n preprocess = 5", "what mine:make gives has a preprocess that cannot be called"),
        ("class make:\n @property\n def characterise(self): return 1/0", "what mine:make gives cannot be used: ZeroDi"),
    ],
)  # fmt: skip
def test_a_module_that_fails_is_refused(write: Callable[[str], None], text: str, expected: str) -> None:
    """Whatever it raises, in one line with its place, and never by ending the process."""
    write(text)
    line = reason("mine:make")
    assert line.startswith(expected)
    if expected.endswith(" ("):
        assert "mine.py, line" in line


def test_what_an_exception_says_is_shortened_and_printable(write: Callable[[str], None]) -> None:
    """It ends up on a terminal."""
    write(r"raise ValueError('\x1b[2J\ud800' + 'x' * 10**6)")
    line = reason("mine:make")
    assert line.isprintable()
    assert len(line) < 600


@pytest.mark.parametrize("method", ["preprocess", "characterise"])
def test_async_methods_do_not_go_with_blocking(write: Callable[[str], None], method: str) -> None:
    """Nothing in the thread would run them."""
    write(f"class make:\n async def {method}(self, event): pass")
    assert load_filter(Filter(factory="mine:make"))
    assert reason("mine:make", blocking=True).startswith(f"what mine:make gives has an async {method}")
