#!/usr/bin/env python3
"""Linux guests, booted by snug: on hardware KVM directly, elsewhere inside a lab.

Usage: run.py [machine | sandbox] [WORD...]: the tests of one part, of about the same length, or of both. WORDs select
tests whose names contain them. Each module registers its tests as it is loaded.
"""
import importlib
import os
import sys

sys.dont_write_bytecode = True
# Whatever a guest does is done by one that is locked in.
os.environ.setdefault("SNUG_JAIL", "require")
# Machines boot: that is what most tests are about, and two of a kind are to be alike. Those of templates say so.
os.environ.setdefault("SNUG_TEMPLATE", "false")

import guests  # noqa: E402

PARTS = {
    # The machine and its devices.
    "machine": ("kernels", "ends", "figures", "devices", "balloon_console", "disks", "pmem", "snapshots", "snapshot_clock", "snapshot_shares", "moves", "updates", "templates"),
    # What people do with it: a console, commands, whole systems, networks and sockets between them.
    "sandbox": ("console", "network", "rings", "sandbox", "kaslr", "limits", "systemd", "integrity", "debian", "taps", "vsock", "shares", "builds",
                "posix_cases", "pjdfstest", "images", "applications"),
}

chosen = [sys.argv.pop(1)] if sys.argv[1:2] and sys.argv[1] in PARTS else list(PARTS)
for part in chosen:
    for module in PARTS[part]:
        importlib.import_module(module)
guests.keep_those_of({module for part in chosen for module in PARTS[part]})
guests.main("linux")
