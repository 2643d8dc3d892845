"""command: `snug run -- true` beside other monitors with the same kernel and a script that does as much."""
import itertools
import os

from bench import archives, processes
from bench.monitors import GuestSpec

ABOUT = "command: work (CPU time) of `snug run -- true`, beside other monitors with a script that runs true and powers off"
WHERE = "counted"

CPU = "CPU time, exec to the end"
SCRIPT = b"""#!/bin/sh
mount -a 2>/dev/null
true
status=$?
echo "status $status"
exec reboot -f
"""


def initrd_with_script(setting):
    """busybox and the script, which is /run-true."""
    script = setting.file("true", lambda path: archives.write(path, {"run-true": (SCRIPT, 0o755)}))
    return archives.joined(setting.path("true-initrd"), setting.initrd, script)


def measure(setting, figures):
    initrd = initrd_with_script(setting)
    kernels = ("bzImage",) if setting.quick else ("ELF", "bzImage")
    for kernel in kernels:
        base = GuestSpec(kernel, initrd, words="quiet rdinit=/run-true")
        case = f"{kernel}, 1 vCPU, 128 MiB"
        snug = setting.snug_monitor()
        command = [setting.snug, "run", "--kernel", snug.kernel_file(base), "--initrd", setting.initrd, "--memory", "128M", "--",
                   "true"]
        measure_snug(setting, figures, case, command)
        measure_snug(setting, figures, case + ", a share", [*command[:-2], "-v", shared(setting), *command[-2:]])
        for monitor in setting.monitors:
            why = monitor.missing(base)
            if why and figures.begin("command", case, monitor.name + ", script"):
                figures.missing("command", case, CPU, monitor.name + ", script", why)
            if why:
                continue
            measure_one(setting, figures, case, monitor.name + ", script", monitor.command(base), "status 0")
    if not setting.quick:
        measure_stock(setting, figures)


def shared(setting):
    """A folder with a file, which the guest mounts and does not look into."""
    folder = setting.path("shared")
    os.makedirs(folder, exist_ok=True)
    setting.file("shared/file", lambda path: open(path, "w").close())
    return folder


def measure_stock(setting, figures):
    """The default image: Debian's kernel, its modules behind the initrd."""
    case = "Debian bzImage, modules for devices, 1 vCPU, 512 MiB"
    modules = setting.images.get("STOCK_MODULES")
    if not modules:
        figures.missing("command", case, CPU, "snug run -- true", "no stock-modules image")
        return
    command = [setting.snug, "run", "--kernel", setting.kernels["Debian bzImage"], "--initrd", setting.initrd, "--initrd",
               modules, "--", "true"]
    measure_snug(setting, figures, case, command)


def measure_snug(setting, figures, case, command):
    """Booted, and from a template, which the run that is thrown away makes; and what that costs, once a kind."""
    def with_template(*words):
        return [*command[:2], "--template", "true", *words, *command[2:]]

    measure_one(setting, figures, case, "snug run -- true", command, None)
    measure_one(setting, figures, case, "snug run --template true -- true", with_template(), None)
    number = itertools.count()
    measure_one(setting, figures, case, "snug run --template true -- true, the run that leaves the template",
                lambda: with_template("--cmdline", f"kind={next(number)}"), None)


def measure_one(setting, figures, case, name, command, text):
    """`command`: or a function that gives one for each run. `text`: what the guest must have printed."""
    if not figures.begin("command", case, name):
        return
    values = []
    try:
        for number in range(setting.runs + 1):
            words = command() if callable(command) else command
            usage, output = processes.tried(lambda words=words: processes.run_to_end(words, setting.environment))
            if text and text not in output:
                raise processes.Failed(f"the guest did not run the script: {output.strip()[-200:]}")
            if number:  # the first is thrown away: it fills caches
                values.append(usage.ru_utime + usage.ru_stime)
    except processes.Failed as problem:
        figures.missing("command", case, CPU, name, str(problem))
        return
    figures.add("command", case, CPU, name, values, "s", setting.method("rusage of the process and its children"))
