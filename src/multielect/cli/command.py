"""The root of the command line; each command has a package beside this file."""

from __future__ import annotations

import click

from multielect import __version__

from .bench.command import bench
from .demo.command import demo


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__)
def multielect() -> None:
    """Thousands of Redis-backed leader elections in one process."""


multielect.add_command(bench)
multielect.add_command(demo)
