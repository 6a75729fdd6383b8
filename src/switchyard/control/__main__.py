"""`python -m switchyard.control`."""

import sys

from switchyard.control.cli import main

sys.exit(main())
