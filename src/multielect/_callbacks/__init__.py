"""How users are told: callbacks and workers, on threads and in an event loop."""
