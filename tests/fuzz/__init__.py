"""Coverage-guided fuzzing with atheris: ``make fuzz``, or ``python -m tests.fuzz NAME --seconds 60``."""
