"""How events reach the user: callbacks and workers, on threads and in an event loop."""
