// Writes the number of the round to each of PAGES pages, round after round, each page once it holds the number before:
// memory of two moments put together does not. After a byte on the serial port, which is sent back, two rounds more, then
// "whole" and power-off; "torn" and an exit with status 3 at the first page that holds another number.
#include "micro.inc"
#define FCR 2
#define MCR 4
#define LSR 5
#define MEMORY 0x800000
#define PAGES 2048
    .section .text
    .globl _start
_start:
    drop_to_user user
user:
    mov $PORT_SERIAL + FCR, %edx
    mov $0x07, %al // FIFOs on and empty
    out %al, %dx
    mov $PORT_SERIAL + MCR, %edx
    mov $0x0b, %al // DTR, RTS, OUT2
    out %al, %dx
    mov $PORT_SERIAL + 1, %edx
    mov $0x01, %al // data available: the port is open
    out %al, %dx
    print ready
    mov $1, %r8 // the round
    mov $-1, %r9 // rounds that are left; negative: no end
round:
    mov $MEMORY, %rdi
    mov $PAGES, %ecx
page:
    mov (%rdi), %rax
    inc %rax
    cmp %r8, %rax
    jne torn
    mov %r8, (%rdi)
    add $4096, %rdi
    dec %ecx
    jnz page
    inc %r8
    test %r9, %r9
    jns last
    mov $PORT_SERIAL + LSR, %edx
    in %dx, %al
    test $1, %al
    jz round
    mov $PORT_SERIAL, %edx
    in %dx, %al
    out %al, %dx
    mov $2, %r9
    jmp round
last:
    dec %r9
    jnz round
    print whole
    power_off
torn:
    print torn_text
    mov $PORT_DEBUG_EXIT, %edx
    mov $1, %al
    out %al, %dx
1:  jmp 1b

    micro_data
    .section .rodata
ready:
    .asciz "rounds ready\r\n"
whole:
    .asciz "whole\r\n"
torn_text:
    .asciz "torn\r\n"
