"""Budgets of design that count exactly: exits."""
from guests import *  # noqa: F403


@test
def exits_from_first_run_to_power_off():
    ended = snug("run", "--kernel", TINY, "--initrd", INITRD_LEAN, "--cmdline", "quiet", "--rng", "false", "--balloon", "none", "--stats",
                 "--timeout", "300s").expect(0)
    print(f"    exits to user space, tiny kernel, quiet, power-off: {ended.stat('exits'):.0f} (budget 250)")
    check(ended.stat("exits") <= 250, "more exits than the budget", ended.err)
