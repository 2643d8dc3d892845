// Exits to user space without end, at CPL 3: a port write, a port read, an MMIO write and an MMIO read each pass.
#include "micro.inc"
    .section .text
    .globl _start
_start:
    drop_to_user user
user:
    mov $0xd0000000, %ebx
1:  mov $0x80, %edx
    out %al, %dx
    in %dx, %al
    mov %eax, (%rbx)
    mov (%rbx), %ecx
    incq 0x200000
    jmp 1b

    micro_data
