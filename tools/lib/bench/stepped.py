"""Guests that do one thing after the other, each when it is told to: what a step costs is read before and after it.

The guest runs a script made here. Before each step it prints a line and waits for Enter; behind it, the same. Its
output in between is the step's. The first step prepares what the others want (files are read for the first time): a
guest that got stuck is replaced by another that does the first step once more and goes on with the one that is missing.
"""
import re
import sys

from bench import processes

HEAD = """#!/bin/sh
export PATH=/sbin:/usr/sbin:/bin:/usr/bin HOME=/root
mount -a 2>/dev/null
stty -echo </dev/console
"""
STEP = """
if [ {number} -eq 0 ] || [ {number} -ge $bench_from ]; then
echo; echo "bench: before {number}"; read go
{command}
echo; echo "bench: behind {number}"; read go
fi
"""
# Guests that may get stuck in one step; the lab loses some (tools/README.md).
ATTEMPTS = 4


def script(steps, prepare=""):
    """`steps`: shell commands. As (content, mode) for archives.write()."""
    parts = [STEP.format(number=number, command=command) for number, command in enumerate(steps)]
    return (HEAD + prepare + "".join(parts) + "\necho; echo 'bench: end'; read go\n").encode(), 0o755


def words(first):
    """For the guest's command line: the first step that it does besides step 0."""
    return f"bench_from={first}"


def run(start, steps, read_cost):
    """For each step (its output, what it cost), where read_cost(guest) gives what was used so far. `start(first)` gives a
    context with a processes.Guest, which has been told words(first)."""
    found, stuck = [], 0
    while True:
        before = len(found)
        try:
            with start(before) as guest:
                for number in [0, *range(1, steps)[max(0, before - 1):]]:
                    result = step(guest, number, read_cost)
                    if number == len(found):
                        found.append(result)
                guest.wait_for(b"bench: end\r")
            return found
        except processes.Stuck as problem:
            stuck = stuck + 1 if len(found) == before else 1
            if stuck == ATTEMPTS:
                raise
            print(f"bench: another guest goes on at step {len(found)} of {steps}: {problem}", file=sys.stderr, flush=True)


def step(guest, number, read_cost):
    # The first thing that is heard of a guest comes behind its boot.
    spinning = processes.SPINNING if number else processes.UNPACKING
    guest.wait_for(b"bench: before %d\r" % number, spinning=spinning)
    before = read_cost(guest)
    guest.type("")
    guest.wait_for(b"bench: behind %d\r" % number)
    cost = read_cost(guest) - before
    text = guest.output.decode("utf-8", "replace").replace("\r", "")
    guest.type("")
    return re.search(rf"bench: before {number}\n(.*)bench: behind {number}\n", text + "\n", re.S).group(1), cost
