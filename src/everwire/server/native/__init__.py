"""The native listener: TCP to WebSocket, and a few small pages."""
