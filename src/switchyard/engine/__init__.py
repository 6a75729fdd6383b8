"""The engine: the only code that changes what is live. It runs on hosts, from one zipapp, on the standard library."""
