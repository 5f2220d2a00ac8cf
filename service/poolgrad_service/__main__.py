"""``python -m poolgrad_service``: the service, with the flags of ``poolgrad serve``."""

import sys

from poolgrad_service.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
