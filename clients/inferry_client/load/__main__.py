"""`python -m inferry_client.load`: Locust with the users of `inferry load`, and arguments of its own, as `--master`."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":  # a new program: Locust's patches come before everything else in it
    locustfile = str(Path(__file__).with_name("locustfile.py"))
    os.execv(sys.executable, [sys.executable, "-m", "locust", "--locustfile", locustfile, *sys.argv[1:]])  # noqa: S606
