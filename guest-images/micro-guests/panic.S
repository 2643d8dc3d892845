// Reports a panic through pvpanic; powers off when the monitor lets it go on.
#include "micro.inc"
    .section .text
    .globl _start
_start:
    drop_to_user user
user:
    mov $PORT_PVPANIC, %edx
    mov $1, %al
    out %al, %dx
    power_off

    micro_data
