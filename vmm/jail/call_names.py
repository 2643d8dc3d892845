#!/usr/bin/env python3
"""call_names.py OUTPUT COMPILER...: the names of the system calls, by number, as the compiler's <asm/unistd_64.h> has them."""
import re
import subprocess
import sys

output, *compiler = sys.argv[1:]
header = subprocess.run([*compiler, "-E", "-dM", "-xc", "-"], input="#include <asm/unistd_64.h>\n", text=True, check=True,
                        stdout=subprocess.PIPE).stdout
numbers = {int(number): name for name, number in re.findall(r"^#define __NR_(\w+) (\d+)$", header, re.M)}
with open(output, "w", encoding="ascii") as table:
    for number in range(max(numbers) + 1):
        table.write(f'"{numbers.get(number, "")}",\n')
