// hello at the size of the tiny Linux kernel's ELF, what loading one costs the monitor: 13 MiB that are loaded, and
// 5 MiB of the file that are not (there, alignment between segments).
#include "micro.inc"
    .section .text
    .globl _start
_start:
    drop_to_user user
user:
    print text
    power_off

    micro_data
    .section .data
    .balign 4096
    .fill PADDING_BYTES / 8, 8, 0x5a5a5a5a5a5a5a5a
    .section .filler, "", @progbits
    .fill FILLER_BYTES / 8, 8, 0x5a5a5a5a5a5a5a5a
    .section .rodata
text:
    .asciz "micro-guest: hello from a large image\r\n"
