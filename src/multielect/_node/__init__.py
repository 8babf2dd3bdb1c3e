"""One node, put together: its core, its engine, its elections."""
