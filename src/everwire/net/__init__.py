"""One link: transports, heartbeat, backoff, tasks."""
