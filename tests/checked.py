"""A filter that tests of ``notifyctl check`` name."""


class Filter:
    def characterise(self, event: object) -> None:
        """Leaves everything to the rules."""
