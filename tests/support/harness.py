"""The small frame of the black-box tests: named checks, processes with a bound, one counting line at the end.

A test is a function decorated with @test. It fails by an exception (`check` makes readable ones) and is skipped
by raising Skip with the reason. Nothing here asserts wall time: bounds are many times what a step usually takes.
"""
import atexit
import contextlib
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

PROGRAM = os.path.abspath(os.environ.get("SNUG_BIN", "build/vmm/cli/snug"))


def jail_missing():
    """What this host refuses of the jail, as snug doctor says it: lines, none of a host that has all of it."""
    said = subprocess.run([PROGRAM, "doctor"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return re.findall(r"^ *note  jail: (.*)$", said.stdout.decode(errors="replace"), re.M)


def limits_here():
    """Which limits machines can have on this host, as snug doctor says it: keys of a spec's `limits`."""
    said = subprocess.run([PROGRAM, "doctor"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    found = re.search(r"^ *ok  limits: (.*) \(.*\)$", said.stdout.decode(errors="replace"), re.M)
    return found[1].split(", ") if found else []


def cgroup_mount():
    """Where control groups (cgroup v2) are; None where they are not."""
    with open("/proc/self/mountinfo") as mounts:
        return next((line.split()[4] for line in mounts if " - cgroup2 " in line), None)


def cgroups_of(machine):
    """Folders of control groups made for machines whose names begin so; those that are about to go are waited for."""
    mount = cgroup_mount()
    deadline = time.monotonic() + GONE_BOUND
    while mount:
        found = [f"{top}/{name}" for top, folders, _ in os.walk(mount) for name in folders if name.startswith(f"snug-{machine}")]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)
    return []


def _program():
    """snug; with SNUG_JAIL=require, one whose machines run completely locked in or not at all. (In a container, or in
    a chroot, no machine would: there they run with what there is, which is said.)"""
    mode = os.environ.get("SNUG_JAIL")
    if not mode:
        return os.environ.get("SNUG_BIN", "build/vmm/cli/snug")
    if mode == "require" and (missing := jail_missing()):
        print(f"  this host refuses a part of the jail, tests go on without it: {'; '.join(missing)}", flush=True)
        mode = "auto"
    folder = tempfile.mkdtemp(prefix="snug-jail-")
    atexit.register(shutil.rmtree, folder, True)
    os.chmod(folder, 0o755)
    wrapper = os.path.join(folder, "snug")
    with open(wrapper, "w") as file:
        file.write(f"""#!/bin/sh
if [ "$1" = run ]; then
  shift
  exec '{PROGRAM}' run --jail {mode} "$@"
fi
exec '{PROGRAM}' "$@"
""")
    os.chmod(wrapper, 0o755)
    return wrapper


SNUG = _program()
STOPPED = 75  # exit status: a test failed, and whoever runs the tests wants to go on on another host
BOUND = float(os.environ.get("SNUG_TEST_BOUND", "330"))  # seconds for one guest to end
GONE_BOUND = 60  # seconds for a process to be gone, of which nothing is left but to go

# Whoever starts the tests as a job in a script's background has these ignored, and what we start would be too.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

EVERYTHING = os.environ.get("SNUG_TESTS_ALL", "0") not in ("", "0")  # what is exhaustive, too

_tests = []


class Skip(Exception):
    """Raised by a test that cannot run here, with the reason."""


@contextlib.contextmanager
def unrecorded():
    """For a `with`, and to decorate a test with: machines do not note their system calls (SNUG_JAIL_AUDIT), which takes
    time and memory that is measured here."""
    record = os.environ.pop("SNUG_JAIL_AUDIT", None)
    try:
        yield
    finally:
        if record is not None:
            os.environ["SNUG_JAIL_AUDIT"] = record


def test(function):
    function.home = function.__module__
    _tests.append(function)
    return function


def exhaustive(function):
    """To decorate a test with, below @test: it takes longer than it is worth in each run. `tools/test --all` runs it, and
    whoever names it."""
    function.exhaustive = True
    return function


def add(name, function, is_exhaustive=False):
    """Registers a case made in a loop."""
    function.__name__ = name
    function.exhaustive = is_exhaustive
    function.home = sys._getframe(1).f_globals["__name__"]
    _tests.append(function)


def keep_those_of(modules):
    """Of the tests registered so far: not those of modules that others take something from."""
    _tests[:] = [function for function in _tests if function.home in modules]


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
        gives the terminal back by itself, and stops all of itself: to SIGSTOP nobody can do anything."""
        import termios
        if number == signal.SIGSTOP:
            stop_machine(self.process.pid)
        else:
            self.process.send_signal(number)
            wait_stopped(processes_of(self.process.pid))
        check(not restores or not self.is_raw(), "the terminal is not given back", self.settings())
        termios.tcsetattr(self.slave, termios.TCSANOW, self.before)
        if number == signal.SIGSTOP:
            continue_machine(self.process.pid)
        else:
            self.process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + BOUND
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


# The processes of a machine are the one that was started, whose pid snug shows, and a child of it that runs the guest;
# other children (passt) are not among them. Root alone may see that child's descriptors, mappings and environment.
def children_of(pid):
    found = []
    for task in tasks_of(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/task/{task}/children") as file:
            found += [int(child) for child in file.read().split()]
    return found


def tasks_of(pid):
    """Threads of a process; none when it has ended."""
    try:
        return os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return []


def status_of(pid):
    """/proc/PID/status, by name."""
    with open(f"/proc/{pid}/status") as status:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in status)}


def state_of(pid):
    """Of a process: R, S, T, ..."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def _snugs(pid):
    """Children of its kind, the one that runs the guest last."""
    found = []
    for child in children_of(pid):
        with contextlib.suppress(OSError):
            if _is_snug(child, pid):
                # What is about to become passt is still snug, but in no other pid namespace.
                # Numbers of processes begin anew at times: which was first the time of its start says, then the number.
                found.append((len(status_of(child).get("NSpid", "").split()), _started(child), child))
    return [child for *_, child in sorted(found)]


def _started(pid):
    """In ticks since the host did."""
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rsplit(")", 1)[1].split()[19])


def inner_processes(pid):
    """Of a machine that runs: the one that serves its shares, where there is one, and the one that runs the guest. While others are
    started or end, the kernel's list of children may lack one."""
    return list(_snugs(pid))


def machine_process(pid):
    """The process that runs the guest: snug's child, or where it has none of its kind snug itself."""
    return [pid, *_snugs(pid)][-1]


def share_server(pid):
    """The process that serves the shares of a machine that has some and runs; it is forked before the other. 0: there is none."""
    return [0, 0, *_snugs(pid)][-2]


def _is_snug(child, pid):
    with open(f"/proc/{child}/comm") as file:
        if file.read().startswith("snug"):
            return True
    with contextlib.suppress(PermissionError):
        return os.readlink(f"/proc/{child}/exe") == os.readlink(f"/proc/{pid}/exe")
    return False


def processes_of(pid):
    """Of a machine, the one that was started first."""
    machine = machine_process(pid)
    return [pid] if machine == pid else [pid, machine]


def stop_machine(pid):
    """The machine stands still: SIGSTOP stops no other process than the one that it is sent to."""
    pids = processes_of(pid)
    for one in pids:
        os.kill(one, signal.SIGSTOP)
    wait_stopped(pids)


def continue_machine(pid):
    for one in reversed(processes_of(pid)):
        os.kill(one, signal.SIGCONT)


def wait_stopped(pids):
    deadline = time.monotonic() + BOUND
    while (states := [state_of(one) for one in pids]) != ["T"] * len(pids):
        check(time.monotonic() < deadline and "Z" not in states, "it does not stop", states)
        time.sleep(0.01)


def hold(pid):
    """What tells when the processes of a machine are gone (check_gone), whoever waits for them."""
    held = []
    for one in processes_of(pid):
        with contextlib.suppress(ProcessLookupError):
            held.append(os.pidfd_open(one))
    return held


def check_gone(held):
    """When one is killed, the other goes some milliseconds later."""
    deadline = time.monotonic() + GONE_BOUND
    for end in held:
        gone = select.select([end], [], [], max(0, deadline - time.monotonic()))[0]
        os.close(end)
        check(gone, "a process of the machine is left")


def kill_machine(process):
    """Kills what was started, and returns when nothing of the machine is left."""
    held = hold(process.pid) if process.poll() is None else []
    process.kill()
    check_gone(held)


def processes_in(runtime):
    """Processes that were started with this XDG_RUNTIME_DIR, as far as this user may look; those that are about to go
    are waited for."""
    deadline = time.monotonic() + GONE_BOUND
    while (found := _started_with(f"XDG_RUNTIME_DIR={runtime}")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _started_with(variable):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/environ", "rb") as environ, open(f"/proc/{pid}/comm") as comm:
                if os.fsencode(variable) in environ.read().split(b"\0"):
                    found.append(f"{comm.read().strip()} (process {pid})")
    return found


def resident_kib(pid):
    """Resident set of a machine, KiB: that of each of its processes."""
    return sum(int(status_of(one).get("VmRSS", "0").split()[0]) for one in processes_of(pid))


def descriptors(pid):
    """How many a machine has open, in all its processes; None where root alone may look."""
    try:
        return sum(len(os.listdir(f"/proc/{one}/fd")) for one in processes_of(pid))
    except PermissionError:
        return None


def reason_not_to_run(function, wanted, until):
    if getattr(function, "exhaustive", False) and not EVERYTHING and not wanted:
        return "one of the exhaustive tests (tools/test --all)"
    if time.monotonic() > until:
        return "the time for all tests is over (tools/test --all has no end)"
    return None


def main(title):
    wanted = sys.argv[1:]
    until = time.monotonic() + float(os.environ.get("SNUG_TESTS_SECONDS") or "inf")
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
            if reason := reason_not_to_run(function, wanted, until):
                raise Skip(reason)
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


__all__ = ["Skip", "EVERYTHING", "test", "exhaustive", "unrecorded", "add", "keep_those_of", "check", "Ended", "snug", "Terminal", "children_of", "inner_processes", "tasks_of", "status_of",
           "state_of", "machine_process", "share_server", "processes_of", "stop_machine", "continue_machine", "hold", "check_gone", "kill_machine",
           "processes_in", "limits_here", "cgroup_mount", "cgroups_of", "resident_kib", "descriptors", "main", "PROGRAM", "jail_missing", "SNUG", "BOUND", "os", "re", "signal", "subprocess",
           "tempfile", "time"]
