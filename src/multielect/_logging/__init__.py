"""What is logged, how often, and on which thread."""
