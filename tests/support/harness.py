"""The small frame of the black-box tests: named checks, processes with a bound, one counting line at the end.

A test is a function decorated with @test. It fails by an exception (`check` makes readable ones) and is skipped
by raising Skip with the reason. Nothing here asserts wall time: bounds are many times what a step usually takes.
"""
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback

SNUG = os.environ.get("SNUG_BIN", "build/vmm/cli/snug")
STOPPED = 75  # exit status: a test failed, and whoever runs the tests wants to go on on another host
BOUND = float(os.environ.get("SNUG_TEST_BOUND", "330"))  # seconds for one guest to end

_tests = []


class Skip(Exception):
    """Raised by a test that cannot run here, with the reason."""


def test(function):
    _tests.append(function)
    return function


def add(name, function):
    """Registers a case made in a loop."""
    function.__name__ = name
    _tests.append(function)


def choose(names):
    """Of the tests registered so far, keeps those with exactly these names."""
    missing = set(names) - {function.__name__ for function in _tests}
    if missing:
        raise LookupError(f"no tests {sorted(missing)}")
    _tests[:] = [function for function in _tests if function.__name__ in names]


def check(condition, message, *outputs):
    if not condition:
        raise AssertionError("\n".join([message, *[_shown(o) for o in outputs]]))


def _shown(output):
    if isinstance(output, bytes):
        output = output.decode("utf-8", "replace")
    lines = str(output).splitlines()
    return "\n".join("    | " + line[:400] for line in lines[-40:])


class Ended:
    """A process that has ended: status (128+N for a signal), stdout and stderr as text."""

    def __init__(self, status, out, err):
        self.status = status if status >= 0 else 128 - status
        self.out = out.decode("utf-8", "replace")
        self.err = err.decode("utf-8", "replace")

    def stat(self, name):
        """A figure of `snug run --stats`."""
        found = re.search(r"^stats: %s ([0-9.]+)" % re.escape(name), self.err, re.M)
        check(found, f"no figure {name} in --stats", self.err)
        return float(found.group(1))

    def expect(self, status):
        check(self.status == status, f"exit status {self.status}, expected {status}", self.out, self.err)
        return self


def snug(*arguments, stdin=subprocess.DEVNULL, bound=BOUND, cwd=None, env=None, prefix=()):
    """Runs snug to its end. `prefix`: a command that is to run it."""
    process = subprocess.Popen([*prefix, SNUG, *arguments], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               cwd=cwd, env=env)
    try:
        out, err = process.communicate(timeout=bound)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"did not end within {bound:.0f} s: snug {' '.join(arguments)}\n{_shown(out)}\n{_shown(err)}")
    return Ended(process.returncode, out, err)


class Terminal:
    """snug on a pseudo-terminal, for a `with`: type, wait for text, see the settings."""

    def __init__(self, *arguments, prefix=()):
        self.master, self.slave = pty.openpty()
        import termios
        self.before = termios.tcgetattr(self.slave)
        self.screen = b""

        def own_terminal():
            os.setsid()
            import fcntl
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen([*prefix, SNUG, *arguments], stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                        preexec_fn=own_terminal)

    def settings(self):
        import termios
        return termios.tcgetattr(self.slave)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def type(self, data, until=None):
        """Types, and waits for the text `until`."""
        os.write(self.master, data)
        if until is not None:
            self.wait_for(until)

    def poll(self, seconds):
        ready, _, _ = select.select([self.master], [], [], seconds)
        if ready:
            try:
                self.screen += os.read(self.master, 65536)
            except OSError:
                return False
        return bool(ready)

    def wait_for(self, text, bound=BOUND):
        deadline = time.monotonic() + bound
        start = len(self.screen)
        while text not in self.screen:
            self.poll(1)
            if self.process.poll() is not None and text not in self.screen:
                while self.poll(0):
                    pass
                check(text in self.screen, f"snug ended ({self.process.returncode}) before {text!r} came", self.screen)
            check(time.monotonic() < deadline, f"{text!r} did not come within {bound:.0f} s", self.screen[start:])
        return self.screen

    def is_raw(self):
        return self.settings() != self.before

    def expect_raw(self):
        check(self.is_raw(), "the terminal is not in raw mode", self.screen)

    def stop_and_go(self, number, restores):
        """Stopped by that signal, the terminal then as a shell makes it for itself; raw again when it goes on. `restores`: snug
        gives the terminal back by itself."""
        import termios
        self.process.send_signal(number)
        deadline = time.monotonic() + BOUND
        while state_of(self.process.pid) != "T":
            check(time.monotonic() < deadline and self.process.poll() is None, "it does not stop", self.screen)
            time.sleep(0.01)
        check(not restores or not self.is_raw(), "the terminal is not given back", self.settings())
        termios.tcsetattr(self.slave, termios.TCSANOW, self.before)
        self.process.send_signal(signal.SIGCONT)
        while not self.is_raw():
            check(time.monotonic() < deadline and self.process.poll() is None, "not raw again", self.screen)
            time.sleep(0.01)

    def expect_end(self, status):
        """With that status, and the terminal as it was."""
        ended = self.wait_end()
        check(ended == status, f"exit status {ended}, expected {status}", self.screen)
        check(not self.is_raw(), "the terminal was not restored", self.screen)

    def wait_end(self, bound=BOUND):
        deadline = time.monotonic() + bound
        while self.process.poll() is None:
            self.poll(0.2)
            check(time.monotonic() < deadline, "snug did not end", self.screen)
        while self.poll(0):
            pass
        status = self.process.returncode
        return status if status >= 0 else 128 - status

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def state_of(pid):
    """Of a process: R, S, T, ..."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def resident_kib(pid):
    """Resident set of a process, KiB."""
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def main(title):
    wanted = sys.argv[1:]
    # Names that need not run again: an earlier run on another host has reported them.
    done = set(os.environ.get("SNUG_TESTS_DONE", "").split())
    passed = failed = skipped = 0
    for function in _tests:
        name = function.__name__
        if wanted and not any(word in name for word in wanted):
            continue
        if f"{title}.{name}" in done:
            continue
        print(f"  start   {title}.{name}", flush=True)
        start = time.monotonic()
        try:
            function()
        except Skip as reason:
            skipped += 1
            print(f"  skipped {title}.{name}: {reason}", flush=True)
        except Exception as problem:  # noqa: BLE001: every failure is a line of the report
            failed += 1
            print(f"  FAILED  {title}.{name} ({time.monotonic() - start:.1f} s)", flush=True)
            if isinstance(problem, AssertionError):
                print(f"    {problem}", flush=True)
            else:
                traceback.print_exc(file=sys.stdout)
            if os.environ.get("SNUG_TESTS_STOP", "0") != "0":
                print("the tests go on elsewhere", flush=True)
                sys.exit(STOPPED)
        else:
            passed += 1
            print(f"  ok      {title}.{name} ({time.monotonic() - start:.1f} s)", flush=True)
    print(f"{title}: {passed} passed, {failed} failed, {skipped} skipped", flush=True)
    sys.exit(1 if failed else 0)


__all__ = ["Skip", "test", "add", "check", "Ended", "snug", "Terminal", "resident_kib", "state_of", "main", "SNUG", "BOUND", "os",
           "re", "signal", "subprocess", "tempfile", "time"]
