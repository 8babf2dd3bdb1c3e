"""Settings, and checks of what users pass in."""
