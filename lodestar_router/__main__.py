"""`python -m lodestar_router` is the `lodestar-router` command."""

import sys

from lodestar_router.cli import main

sys.exit(main())
