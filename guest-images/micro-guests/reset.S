// Asks for a reset through the ACPI reset register.
#include "micro.inc"
    .section .text
    .globl _start
_start:
    drop_to_user user
user:
    mov $PORT_ACPI_RESET, %edx
    mov $ACPI_RESET, %al
    out %al, %dx
1:  jmp 1b

    micro_data
