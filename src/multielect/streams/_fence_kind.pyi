from typing_extensions import TypeVar

from ..fencing import AsyncFence, Fence

F = TypeVar("F", bound=Fence | AsyncFence, default=Fence)  # noqa: PYI001  # shared by two files
