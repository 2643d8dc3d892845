// Counts interrupts of vector 0x40 at gpa 0x200000 while it loops at CPL 3, counting passes at 0x200008.
#include "micro.inc"
#define VECTOR 0x40
#define LAPIC 0xfee00000
    .section .text
    .globl _start
_start:
    lea handler(%rip), %rax
    lea idt + VECTOR * 16(%rip), %rdi
    mov %ax, (%rdi)
    movw $0x08, 2(%rdi)
    movw $0x8e00, 4(%rdi)
    shr $16, %rax
    mov %ax, 6(%rdi)
    movl $0, 8(%rdi)
    lidt idt_pointer(%rip)
    // Spurious-interrupt register: switch the local APIC on.
    mov $LAPIC, %eax
    movl $0x1ff, 0xf0(%rax)
    drop_to_user user
user:
    incq 0x200008
    jmp user

handler:
    push %rax
    lock incq 0x200000
    mov $LAPIC, %eax
    movl $0, 0xb0(%rax)
    pop %rax
    iretq

    micro_data
    .section .data
idt_pointer:
    .word 0x41 * 16 - 1
    .quad idt
    .section .bss
    .balign 16
idt:
    .skip 0x41 * 16
