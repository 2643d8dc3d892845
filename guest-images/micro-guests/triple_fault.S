// Faults with no interrupt table: the processor shuts down.
    .section .text
    .globl _start
_start:
    lidt empty(%rip)
    ud2
1:  jmp 1b

    .section .data
empty:
    .word 0
    .quad 0
