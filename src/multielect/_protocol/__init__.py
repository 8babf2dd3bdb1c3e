"""The protocol with Redis: keys, scripts, error replies."""
