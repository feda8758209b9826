"""The hub: from producers through the log to every subscriber."""
