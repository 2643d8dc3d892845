// Goes on where there is no memory: no processor can run what it finds there, and no KVM emulate it.
    .section .text
    .globl _start
_start:
    mov $0xd0000000, %eax
    jmp *%rax
