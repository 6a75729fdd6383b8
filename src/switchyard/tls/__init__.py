"""Certificates at the edge: where a pair comes from, whether it may serve, and when it is renewed."""
