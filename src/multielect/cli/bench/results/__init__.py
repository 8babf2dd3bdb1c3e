"""What was found: values of rounds, what follows from them, and how they are told."""
