// Entered by PVH (32-bit protected mode, no paging): checks the magic of hvm_start_info, says so, powers off.
#include "micro.inc"
    .section .text
    .code32
    .globl _start
_start:
    cmpl $0x336ec578, (%ebx)
    jne fail
    mov $text, %esi
    mov $PORT_SERIAL, %edx
1:  lodsb
    test %al, %al
    jz 2f
    out %al, %dx
    jmp 1b
2:  mov $PORT_ACPI_SLEEP, %edx
    mov $ACPI_POWER_OFF, %al
    out %al, %dx
    jmp .
fail:
    mov $1, %al
    out %al, $PORT_DEBUG_EXIT
    jmp .

    .section .rodata
text:
    .asciz "micro-guest: entered by PVH\r\n"

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long _start
