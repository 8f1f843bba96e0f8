"""``python -m xlm_plugins``, which is what the launchers of many processes start."""

import sys

from xlm_plugins.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
