"""What is said to Redis, and how it refuses: keys, scripts, replies that are errors."""
