"""Lets ``python -m multielect.cli`` do what `multielect` does."""

from . import main

main()
