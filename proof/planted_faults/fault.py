"""One fault that is planted: which code it changes, and which tests look for it first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """A change of one file.

    Attributes:
        file: the file, below src/multielect.
        before: the text that the fault replaces.
        after: the text that the fault puts there.
    """

    file: str
    before: str
    after: str


@dataclass(frozen=True)
class Fault:
    """One deliberate mistake.

    Attributes:
        name: its name on the command line.
        about: what goes wrong, for the table.
        edits: the changes that make it.
        suites: the tests to run, in this order, until one fails.
    """

    name: str
    about: str
    edits: tuple[Edit, ...]
    suites: tuple[str, ...]
