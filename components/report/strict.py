"""What all evidence is made of."""

from pydantic import ConfigDict


class Strict:
    """Makes reading from JSON refuse unknown fields."""

    __pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
