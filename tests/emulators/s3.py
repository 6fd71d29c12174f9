"""moto's S3 in a process of its own.

Run as a program: `python -m tests.emulators.s3` prints the port it listens on, on loopback, keeps
everything in memory and ends with its standard input. Needs `moto[server]`.
"""

import logging
import sys

from moto.server import ThreadedMotoServer


def main() -> None:
    """Serves until the standard input ends."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
