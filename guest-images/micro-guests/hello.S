// Prints a line on the serial port and powers off with status 0.
#include "micro.inc"
    .section .text
    .globl _start
_start:
    drop_to_user user
user:
    print text
    power_off

    micro_data
    .section .rodata
text:
    .asciz "micro-guest: hello\r\n"
