// Entry of the micro-guests in C: interrupts, the KVM clock, then down to CPL 3 and guest_begin(). What runs at CPL 0
// is short, for some hosts emulate it instruction by instruction. Two ways lead to it: _start is the entry of the 64-bit
// Linux boot protocol; pvh_start that of PVH, for guests that say so in a note (virtio-bench), which QEMU knows too.
#define USER_STACK_BYTES 65536
#include "micro.inc"
#define LAPIC 0xfee00000
#define MSR_KVM_SYSTEM_TIME 0x4b564d01 /* Linux, Documentation/virt/kvm/x86/msr.rst */
    .section .text
    .globl _start
_start:
    mov %rsi, zero_page(%rip)
    lidt idt_pointer(%rip)
    // Spurious-interrupt register: switch the local APIC on.
    mov $LAPIC, %eax
    movl $0x1ff, 0xf0(%rax)
    mov $0x40000000, %eax
    cpuid
    cmp $0x4b4d564b, %ebx // "KVMK"
    jne 1f
    lea kvm_clock(%rip), %rax
    or $1, %eax
    xor %edx, %edx
    mov $MSR_KVM_SYSTEM_TIME, %ecx
    wrmsr
1:  drop_to_user user
user:
    call guest_begin
    power_off

// PVH (Xen, docs/misc/pvh.pandoc): 32-bit protected mode without paging, ebx is the address of hvm_start_info.
    .code32
    .globl pvh_start
pvh_start:
    mov 24(%ebx), %eax // cmdline_paddr
    mov %eax, pvh_zero_page + 0x228
    // Firmware has left the PC's old interrupt controller on, if there is one, and its timer running.
    mov $0xff, %al
    out %al, $0x21
    out %al, $0xa1
    mov $0x20, %eax // PAE
    mov %eax, %cr4
    mov $page_tables, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx // EFER: LME
    mov $0x100, %eax
    xor %edx, %edx
    wrmsr
    mov $0x80000011, %eax // PG, ET, PE
    mov %eax, %cr0
    lgdt gdt_pointer
    ljmp $0x08, $1f
    .code64
1:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    lea kernel_stack_top(%rip), %rsp
    lea pvh_zero_page(%rip), %rsi
    jmp _start

// Vectors 0x40 to 0x7f: each counts itself, acknowledges and returns.
    .balign 32
    .globl interrupt_stubs
interrupt_stubs:
    number = 0
    .rept 64
    .balign 32
    push %rax
    lock incq interrupts + 8 * number
    mov $LAPIC, %eax
    movl $0, 0xb0(%rax)
    pop %rax
    iretq
    number = number + 1
    .endr

// Exceptions: on to exception_report() at CPL 3, with the frame that the processor has left.
    .balign 16
    .globl exception_stubs
exception_stubs:
    number = 0
    .rept 32
    .balign 16
    pushq $number
    jmp exception
    number = number + 1
    .endr
exception:
    mov %rsp, %rdi
    push $USER_DATA
    lea user_stack_top(%rip), %rax
    push %rax
    push $0x3202
    push $USER_CODE
    lea exception_report(%rip), %rax
    push %rax
    iretq

    .globl spurious_stub
spurious_stub:
    iretq

    micro_data
    .section .data
// The first 5 GiB where they are, open to CPL 3, as the 64-bit entry finds them: made by the assembler, since a host
// that emulates CPL 0 would take 10 ms for it.
    .balign 4096
page_tables:
    .quad 1f + 7
    .skip 4096 - 8
1:
    directory = 0
    .rept 5
    .quad 2f + 4096 * directory + 7
    directory = directory + 1
    .endr
    .skip 4096 - 5 * 8
2:
    place = 0
    .rept 5 * 512
    .quad place + 0x87 // 2 MiB, user, writable, present
    place = place + (2 << 20)
    .endr
// As much of a zero page as anybody looks at: where the command line is.
pvh_zero_page:
    .skip 0x228 + 4
idt_pointer:
    .word 256 * 16 - 1
    .quad idt
    .section .bss
    .balign 64
    .globl idt, interrupts, kvm_clock, zero_page
idt:
    .skip 256 * 16
interrupts:
    .skip 64 * 8
kvm_clock:
    .skip 64
zero_page:
    .skip 8
