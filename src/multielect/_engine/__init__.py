"""The threads that pump bytes between the core and its connection."""
