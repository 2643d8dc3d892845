"""What the tests with micro-guests share."""
import contextlib
import select
import sys

sys.path.insert(0, sys.path[0] + "/../support")
from harness import *  # noqa: E402,F403

MICRO = os.environ["SNUG_IMAGE_MICRO"]


@contextlib.contextmanager
def folder_with_peer(script):
    """A folder with a sparse disk image, and a `passt` that does what the shell script says with the socket of a
    guest's network, descriptor 3: frames there and back behind their lengths. (None: without one.) Gives the folder
    and the environment in which snug finds that passt."""
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/disk.img", "wb") as disk:
            disk.truncate(64 << 20)
        environment = dict(os.environ)
        if script is not None:
            with open(folder + "/passt", "w") as peer:
                peer.write(f"#!/bin/sh\n{script}\n")
            os.chmod(folder + "/passt", 0o755)
            environment["PATH"] = folder + ":" + environment["PATH"]
        yield folder, environment


# By the first answer snug knows that passt is at work.
ANSWER = "dd bs=46 count=1 status=none <&3 >&3"

# What is sent comes back / goes nowhere.
ECHO = "exec dd bs=256k status=none <&3 >&3"
SINK = f"{ANSWER}; exec dd bs=256k status=none of=/dev/null <&3"


__all__ = [name for name in globals() if not name.startswith("__")]
