// The smallest guest: tells the debug-exit port 42, then halts for good, should the monitor go on. The instructions
// are the same in 32-bit and 64-bit mode, so it may be entered by either boot protocol.

    .section .text
    .globl _start
_start:
    cli
    mov $42, %al
    out %al, $0xf4
1:  hlt
    jmp 1b

// The PVH entry point (XEN_ELFNOTE_PHYS32_ENTRY).
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long _start
