"""The inputs that fuzzing kept, among them everything it ever found."""

from __future__ import annotations

import pytest

from tests.fuzz.targets import CORPUS, FRAMINGS, check


@pytest.mark.parametrize("framing", FRAMINGS)
def test_every_input_that_fuzzing_kept_is_framed(framing: str) -> None:
    """What failed once does not fail again."""
    inputs = sorted((CORPUS / framing).iterdir())
    assert len(inputs) >= 2
    for path in inputs:
        check(framing, path.read_bytes())


def test_the_corpus_stays_small() -> None:
    """It is kept in the repository."""
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert len(files) < 200
    assert sum(path.stat().st_size for path in files) < 500_000
