"""`python -m tests.bed`."""

from __future__ import annotations

import sys

from tests.bed.cli import main

sys.exit(main())
