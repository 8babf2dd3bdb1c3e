"""A private Redis or Valkey server for demos and tests. It does not keep its data.

It writes only its log to disk, and deletes that when it ends. Do not store important data in it.
"""

from ._server import EmbeddedServer, EmbeddedServerError, bundled_binary, find_binary

__all__ = ["EmbeddedServer", "EmbeddedServerError", "bundled_binary", "find_binary"]
