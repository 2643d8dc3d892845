// Sends back what arrives on the serial port, with receive interrupts enabled but never taken; powers off after a
// Ctrl-D.
#include "micro.inc"
#define IER 1
#define FCR 2
#define MCR 4
#define LSR 5
    .section .text
    .globl _start
_start:
    drop_to_user user
user:
    print text
    mov $PORT_SERIAL + FCR, %edx
    mov $0x07, %al // FIFOs on and empty
    out %al, %dx
    mov $PORT_SERIAL + MCR, %edx
    mov $0x0b, %al // DTR, RTS, OUT2
    out %al, %dx
    mov $PORT_SERIAL + IER, %edx
    mov $0x01, %al // data available: the port is open
    out %al, %dx
next:
    mov $PORT_SERIAL + LSR, %edx
1:  in %dx, %al
    test $1, %al
    jz 1b
    mov $PORT_SERIAL, %edx
    in %dx, %al
    out %al, %dx
    cmp $4, %al
    jne next
    power_off

    micro_data
    .section .rodata
text:
    .asciz "echo ready\r\n"
