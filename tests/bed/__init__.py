"""The test bed: containers that stand in for VMs, on one machine, with a registry and images of its own."""

from __future__ import annotations

from tests.bed.bed import Bed
from tests.bed.errors import BedError
from tests.bed.hosts import Host
from tests.bed.registry import Pushed, Registry

__all__ = ["Bed", "BedError", "Host", "Pushed", "Registry"]
