// One access of every width through the port bus and the MMIO bus, at CPL 3, then the debug exit with code 7.
// Ports 0x2000 + width, addresses 0xd0000000 + 0x100 * width; values 0x11, 0x2222, 0x44444444, 0x8888888888888888.
#include "micro.inc"
    .section .text
    .globl _start
_start:
    drop_to_user user
user:
    mov $0x2001, %edx
    mov $0x11, %al
    out %al, %dx
    in %dx, %al
    mov $0x2002, %edx
    mov $0x2222, %ax
    out %ax, %dx
    in %dx, %ax
    mov $0x2004, %edx
    mov $0x44444444, %eax
    out %eax, %dx
    in %dx, %eax
    mov $0xd0000000, %ebx
    movb $0x11, 0x100(%rbx)
    mov 0x100(%rbx), %al
    movw $0x2222, 0x200(%rbx)
    mov 0x200(%rbx), %ax
    movl $0x44444444, 0x400(%rbx)
    mov 0x400(%rbx), %eax
    movabs $0x8888888888888888, %rcx
    mov %rcx, 0x800(%rbx)
    mov 0x800(%rbx), %rcx
    lea text(%rip), %rsi
    mov $0x2001, %edx
    mov $3, %ecx
    rep outsb
    mov $PORT_DEBUG_EXIT, %edx
    mov $7, %al
    out %al, %dx
1:  jmp 1b

    micro_data
    .section .rodata
text:
    .ascii "abc"
