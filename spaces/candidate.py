"""What a study searches among, whatever kind it is: the little that the search, the store and the lists ask of it."""

from typing import Any, Protocol

from vittle.spaces.reduction import Values


class Candidate(Protocol):
    """Something that can be proposed, evaluated and stored: immutable, and picklable, for it travels to workers."""

    @property
    def id(self) -> str:
        """At most twelve letters or digits that are the same for the same candidate, everywhere and always."""
        ...

    @property
    def summary(self) -> str:
        """What it is, in a few words."""
        ...

    @property
    def is_baseline(self) -> bool:
        """Whether it is what the others are compared with, which is always evaluated to the end."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """As plain values, from which its kind reads it again."""
        ...


class SearchSpace(Protocol):
    """The candidates that a study may propose, as named numbers and choices that a sampler understands.

    Its members take and give candidates of one kind; they say `Any` so that a space of schedules is one as it stands.
    """

    @property
    def parameters(self) -> Any:
        """What is searched, a tuple of `Parameter` and `Choice`."""

    def candidate(self, values: Values, /) -> Any:
        """The candidate that a value for each parameter stands for. Every value within its range is feasible."""

    def encode(self, candidate: Any, /) -> Values:
        """The canonical value of each parameter: what `candidate` makes this candidate of.

        Raises:
            VittleError: the space does not hold it.
        """
        ...
