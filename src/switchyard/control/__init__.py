"""The control side: the bundle for hosts, fleet coordination, the `switchyard` command."""
