// The agent as bytes: from snug_guest_agent to snug_guest_agent_end.
.section .rodata
.globl snug_guest_agent, snug_guest_agent_end
.balign 16
snug_guest_agent:
.incbin AGENT
snug_guest_agent_end:
.section .note.GNU-stack, "", @progbits
