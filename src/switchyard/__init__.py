"""Switchyard: blue/green releases of Compose applications on plain Linux VMs.

Modules that run on hosts (all but those in `control`) use Python 3.11's standard library alone.
"""

PROTOCOL = 1
"""Version of the requests and answers between control side and engine. A host refuses another one."""
