#!/usr/bin/env python3
"""Linux guests, booted by snug: on hardware KVM directly, elsewhere inside one lab boot.

Words on the command line select tests whose names contain them. Each module registers its tests as it is loaded.
"""
import sys

sys.dont_write_bytecode = True

import guests  # noqa: E402
import kernels  # noqa: E402,F401
import kaslr  # noqa: E402,F401
import ends  # noqa: E402,F401
import figures  # noqa: E402,F401
import console  # noqa: E402,F401
import devices  # noqa: E402,F401
import balloon_console  # noqa: E402,F401
import disks  # noqa: E402,F401
import network  # noqa: E402,F401
import rings  # noqa: E402,F401
import sandbox  # noqa: E402,F401
import integrity  # noqa: E402,F401
import debian  # noqa: E402,F401
import taps  # noqa: E402,F401
import vsock  # noqa: E402,F401

guests.main("linux")
