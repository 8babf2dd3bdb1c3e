"""A private Redis or Valkey server, for demos and tests only: it keeps nothing.

It writes nothing to disk but its log, and leaves nothing behind. Do not keep data that matters in
it.
"""

from ._server import EmbeddedServer, EmbeddedServerError, bundled_binary, find_binary

__all__ = ["EmbeddedServer", "EmbeddedServerError", "bundled_binary", "find_binary"]
