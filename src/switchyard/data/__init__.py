"""The database and what users uploaded: backed up, proven by restores, brought back.

Everything that changes a host goes through `engine.effects`, as in the engine.
"""
