"""A release on probation, and the host's own standing watch."""
