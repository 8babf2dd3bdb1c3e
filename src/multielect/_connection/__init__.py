"""One connection to a server: address, login, TLS, errors, backoff."""
