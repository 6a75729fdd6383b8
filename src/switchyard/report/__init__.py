"""Answers about the past: the ledger's story, DORA figures, traffic by release, and a page to look at."""
