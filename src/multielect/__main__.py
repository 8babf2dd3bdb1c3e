"""Lets ``python -m multielect`` do what the command `multielect` does."""

from .cli import main

main()
