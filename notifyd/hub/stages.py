"""What the pipeline does with each event, put together from ``hub.toml``: lookups, own code, rules, storms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from notifyd import config, postgresql
from notifyd.config import ConfigurationError
from notifyd.config_hub import HubConfig, Lookup
from notifyd.database import StateError
from notifyd.hub.breaker import Tell
from notifyd.hub.classify import Classifier
from notifyd.hub.conditions import Matcher
from notifyd.hub.draft import Draft
from notifyd.hub.enrich import Enricher, make_lookup
from notifyd.hub.filtering import FilterRunner
from notifyd.hub.suppress import Suppressor
from notifyd.hub.unclassified import Unclassified
from notifyd.hub.windows import WindowRow


@dataclass(frozen=True)
class Stages:
    """The stages that there are; None for one that the configuration does not ask for."""

    enricher: Enricher | None
    own_code: FilterRunner | None
    classifier: Classifier
    suppressor: Suppressor | None
    unclassified: Unclassified

    async def stop(self) -> None:
        """Ends what waits, and tells what was only counted."""
        if self.enricher is not None:
            await self.enricher.stop()
        if self.own_code is not None:
            self.own_code.stop()
        self.unclassified.stop()


def _matches(lookup: Lookup) -> Callable[[Draft], bool] | None:
    """Gives what tells which events a lookup is for; None where it is for every one, which then costs none of them."""
    return Matcher(lookup).matches if lookup.type or lookup.source or lookup.where else None


def own_database(settings: HubConfig, state: Path) -> str:
    """Gives the URL of the hub's own database."""
    return settings.database.url or f"sqlite:///{quote(str((state / 'hub.db').absolute()))}"


def check_stages(settings: HubConfig, path: str) -> None:
    """Checks what the configuration alone cannot see, without opening anything; raises ConfigurationError."""
    urls = [("database.url", settings.database.url)]
    urls += [(f"lookup[{index}].database", lookup.database) for index, lookup in enumerate(settings.lookup)]
    for key, url in urls:
        if url is not None and config.is_postgresql(url):
            try:
                postgresql.parse_url(url)
            except (ValueError, StateError) as error:
                raise ConfigurationError(path, key, str(error)) from None


def make_stages(
    settings: HubConfig, state: Path, *, reactor: Any, tell: Tell, filter_object: object, windows: Iterable[WindowRow]
) -> Stages:
    """Puts the stages together; nothing is opened before an event needs it.

    Args:
        settings: of ``hub.toml``.
        state: the state folder, for the hub's own database.
        reactor: for threads, clock and timers.
        tell: queues an event of the hub's own.
        filter_object: what the filter's factory has made, if there is one.
        windows: of repeats, which were open when the hub ended.

    Raises:
        StateError: a database cannot be asked by this installation.
    """
    own_url = own_database(settings, state)
    lookups = [
        make_lookup(each, own_url, reactor=reactor, tell=tell, matches=_matches(each)) for each in settings.lookup
    ]
    windows = tuple(windows)
    suppressor = None
    if settings.suppress or windows:
        suppressor = Suppressor(settings.suppress, [Matcher(each).matches for each in settings.suppress], windows)
    own_code = None
    if settings.filter is not None:
        own_code = FilterRunner(reactor, settings.filter, filter_object)
    return Stages(
        Enricher(reactor, lookups) if lookups else None,
        own_code,
        Classifier(settings.rule, settings.default_priority),
        suppressor,
        Unclassified(reactor),
    )
