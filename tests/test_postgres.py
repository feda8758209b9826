"""The throwaway PostgreSQL server that other tests stand on."""

from __future__ import annotations

import pytest

from tests.postgres import Cluster


def test_each_url_leads_into_an_empty_schema(postgres: Cluster) -> None:
    """Tests do not see each other's tables."""
    one, other = postgres.fresh_url(), postgres.fresh_url()
    postgres.execute("CREATE TABLE zone AS SELECT 7 AS zone", one)
    assert postgres.execute("SELECT to_regclass('zone')", other) == [(None,)]
    assert postgres.execute("SELECT zone FROM zone", one) == [(7,)]


@pytest.mark.parametrize("how", ["smart", "fast", "immediate", "kill", "frozen and killed"])
def test_it_comes_back_with_what_was_committed(postgres: Cluster, how: str) -> None:
    """However it was stopped, and on the same port."""
    url = postgres.fresh_url()
    postgres.execute("CREATE TABLE zone AS SELECT 7 AS zone", url)
    if how.endswith(("kill", "killed")):
        if "frozen" in how:
            postgres.freeze()
        postgres.kill()
    else:
        postgres.stop(how)
    assert not postgres.running
    postgres.restart()
    assert postgres.execute("SELECT zone FROM zone", url) == [(7,)]


def test_a_frozen_server_answers_when_it_is_thawed(postgres: Cluster) -> None:
    """And not before: a connection waits in vain."""
    import psycopg

    postgres.freeze()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres.url(), connect_timeout=1)
    postgres.thaw()
    assert postgres.execute("SELECT 1") == [(1,)]
