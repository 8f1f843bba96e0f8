"""``python -m xlm_plugins``, for launchers that start many processes."""

import sys

from xlm_plugins.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
