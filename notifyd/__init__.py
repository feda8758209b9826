"""notifyd: serial line in, notified clients out, nothing lost."""

from importlib.metadata import version

__version__ = version("notifyd")
