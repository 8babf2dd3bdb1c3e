"""What is shown by machine about the whole of multielect; none of it is installed."""
