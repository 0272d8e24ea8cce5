"""The server: what a user writes, the node that runs it, and its connections."""
