#!/usr/bin/env python3
"""Usage: bochs.py FOLDER NAME=PATH... [-- NAME=PATH...]

Runs Bochs with the settings FOLDER/bochsrc to its end, on a terminal of its own that nobody sees, and serves the folders
named to what runs in it: those in front of -- for reading, those behind it for writing too. FOLDER/key, which the lab
fetches by TFTP, then says how to reach them: "PORT SECRET". Bochs ends with this program, however that ends.
"""
import ctypes
import os
import pty
import re
import secrets
import signal
import sys
import threading
import tty

sys.dont_write_bytecode = True

import nine_p  # noqa: E402


def exports(words):
    found, writable = {}, False
    for word in words:
        if word == "--":
            writable = True
        else:
            name, _, path = word.partition("=")
            found[name] = (path, writable)
    return found


def run_bochs(folder):
    parent = os.getpid()
    child, terminal = pty.fork()
    if child == 0:
        # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.environ["TERM"] = "linux"
        os.environ["LC_ALL"] = "C"
        # Debian's Bochs has its debugger built in, which waits to be told to go on.
        os.execvp("bochs", ["bochs", "-q", "-f", f"{folder}/bochsrc", "-rc", f"{folder}/continue"])
    said, screen = b"", None
    with open(f"{folder}/bochs", "wb", buffering=0) as log:
        for data in pieces(terminal):
            if log.tell() < 1 << 20:
                log.write(data)
            if screen is None:
                said = (said + data)[-4096:]
                screen = watch_screen(said)
    os.waitpid(child, 0)


def pieces(terminal):
    """What comes from a terminal until its other end is closed."""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            return
        if not data:
            return
        yield data


def watch_screen(said):
    """With its debugger Bochs draws on another terminal, whose name it says, and stands still once that is full."""
    found = re.search(rb'connected to screen "([^"]+)"', said)
    if found is None:
        return None
    screen = os.open(found[1], os.O_RDWR | os.O_NOCTTY)
    tty.setraw(screen)
    threading.Thread(target=lambda: all(True for _ in pieces(screen)), daemon=True).start()
    return screen


def main():
    folder = sys.argv[1]
    secret = secrets.token_hex(16)
    port = nine_p.start(secret, exports(sys.argv[2:]))
    with open(f"{folder}/tftp/key", "w") as key:
        key.write(f"{port} {secret}\n")
    with open(f"{folder}/continue", "w") as script:
        script.write("c\n")
    run_bochs(folder)


main()
