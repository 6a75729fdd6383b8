"""Delivers news from the spool to webhooks: a process of its own, so that no operation ever waits for a receiver."""
