"""The protocol without I/O: messages, dialects, positions, names, states."""
