"""Fences on the shared servers, once with flags in their scripts and once without."""

from __future__ import annotations

import pytest
import redis

from multielect.fencing import Fence

from .elections import PREFIX


@pytest.fixture(params=["flags", "no flags"])
def fence(request: pytest.FixtureRequest, redis_client: redis.Redis) -> Fence:
    """A fence that asks the server, and one that was told by it that it is older than 7.0."""
    made = Fence(redis_client, PREFIX)
    if request.param == "no flags":
        made._knows_flags = False
    return made
