"""The checker of shapes and types that the tests put around the engine's functions. It takes an int for a float, as mypy does."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
