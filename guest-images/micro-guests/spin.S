// Runs for ever at CPL 3 and never exits by itself; counts its passes at gpa 0x200000.
#include "micro.inc"
    .section .text
    .globl _start
_start:
    drop_to_user user
user:
    incq 0x200000
    jmp user

    micro_data
