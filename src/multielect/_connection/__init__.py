"""One connection to a server: where it is, who logs in, TLS, and what goes wrong."""
