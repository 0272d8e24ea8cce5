"""From what a user declares to a call: parameters by annotation, plain functions in threads."""
