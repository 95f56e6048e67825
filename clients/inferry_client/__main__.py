"""`python -m inferry_client` is `inferry`."""

import sys

from inferry_client.cli import main

if __name__ == "__main__":
    sys.exit(main())
