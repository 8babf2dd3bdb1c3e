"""The subjects of the bench: multielect, the server's own limit, and other libraries."""
