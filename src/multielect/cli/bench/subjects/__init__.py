"""Whom the bench measures: this library, the server's own limit, and others."""
