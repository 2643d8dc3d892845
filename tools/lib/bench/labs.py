"""Tables measured in labs (tools/lab): each in one of its own, several at the same time.

Everything here runs in threads of its own but for run(), which the main thread waits in.
"""
import concurrent.futures
import os
import subprocess
import sys
import tempfile
import threading
import time

from bench import figures

# Seconds without a figure or a new piece of work after which a lab counts as frozen. Guests that get stuck in it are
# given up earlier, from within (SNUG_BENCH_BOUND).
FROZEN = float(os.environ.get("SNUG_BENCH_FROZEN", "1800"))
# The tables that take longest come first, so that no processor idles at the end.
LONGEST = ("boot", "scale", "block", "share", "image", "net", "command", "memory", "exits")


class Labs:
    """`keep(table, figures)` is called with what a table has so far, whenever that has grown, by any thread."""

    def __init__(self, top, quick, keep):
        self.top = top
        self.quick = quick
        self.keep = keep
        self.stopping = threading.Event()
        self.processes = set()
        self.lock = threading.Lock()

    def run(self, tables, jobs):
        """`tables`: name to whether it is counted: measured where an instruction is a nanosecond."""
        order = sorted(tables, key=lambda name: LONGEST.index(name) if name in LONGEST else 0)
        with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
            pending = [pool.submit(self._measure, name, tables[name]) for name in order]
            try:
                while pending:
                    # Not for ever at once: a signal is noticed in between.
                    done, pending = concurrent.futures.wait(pending, 1.0, concurrent.futures.FIRST_EXCEPTION)
                    for one in done:
                        one.result()
            finally:
                self._stop(pool)

    def _stop(self, pool):
        self.stopping.set()
        pool.shutdown(wait=False, cancel_futures=True)
        with self.lock:
            for process in self.processes:
                process.terminate()

    def _measure(self, table, counted):
        """If a lab ends early or freezes, another goes on where it was; a piece of work that this happens to twice is
        left out."""
        with tempfile.TemporaryDirectory(prefix="snug-bench.") as folder:
            path = os.path.join(folder, "figures.json")
            words = self._words(table, counted, folder, path)
            before = ""
            while not self.stopping.is_set():
                status = self._watched(words, table, path)
                found = self._read(path)
                self.keep(table, found)
                if status == 0 or self.stopping.is_set():
                    return
                last = found.begun[-1] if found.begun else None
                print(f"bench: the lab of table {table} ended early ({status}) at {last}", file=sys.stderr, flush=True)
                if last == before:
                    name, _, rest = (last or f"{table}: all: all").partition(": ")
                    case, _, monitor = rest.rpartition(": ")
                    found.missing(name, case, "all", monitor, f"the lab ended early, twice ({status})")
                    self.keep(table, found)
                    if last is None:
                        return
                elif last:
                    found.begun.pop()
                before = last
                found.write(path)

    def _words(self, table, counted, folder, path):
        # Under --icount only the lab's clock chip, which shows this machine's time, can bound anything.
        clock = ["--icount", "--env", "SNUG_BENCH_CLOCK=/sys/class/rtc/rtc0/since_epoch", "--env",
                 "SNUG_BENCH_BOUND=" + os.environ.get("SNUG_BENCH_BOUND", "600")] if counted else []
        return [os.path.join(self.top, "tools", "lab"), *clock, "--timeout", "10h", "--share", folder, "--", "python3",
                os.path.join(self.top, "tools", "bench"), "--inside", path, *(["--icount"] if counted else []),
                *(["--quick"] if self.quick else []), table]

    def _read(self, path):
        try:
            return figures.read(path)
        except (OSError, ValueError):
            return figures.Figures()

    def _watched(self, words, table, path):
        """The exit status of the lab, or "frozen" after it had to be ended."""
        with self.lock:
            if self.stopping.is_set():
                return "stopped"
            # In a session of its own: a Ctrl-C is for the bench alone, which ends its labs.
            process = subprocess.Popen(words, stdout=sys.stderr, stdin=subprocess.DEVNULL, start_new_session=True)
            self.processes.add(process)
        changed, seen = time.monotonic(), None
        try:
            while True:
                try:
                    return process.wait(2)
                except subprocess.TimeoutExpired:
                    now = os.stat(path).st_mtime_ns if os.path.exists(path) else None
                    if now != seen:
                        changed, seen = time.monotonic(), now
                        self.keep(table, self._read(path))
                    elif time.monotonic() - changed > FROZEN:
                        process.terminate()
                        process.wait()
                        return "frozen"
        finally:
            with self.lock:
                self.processes.discard(process)
