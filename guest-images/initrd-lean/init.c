// The least a guest can do: the first program powers the machine off, or resets it when the kernel passes it the
// word "reset" (`-- reset` at the end of the kernel command line). Everything counted or timed in such a guest is the
// kernel's work and the monitor's. No C library: the program starts in _start with the kernel's stack layout.

enum { kSysReboot = 169, kPowerOff = 0x4321fedc, kRestart = 0x01234567 };

// Equal as C strings.
static int equal(const char* a, const char* b) {
  while (*a && *a == *b) ++a, ++b;
  return *a == *b;
}

// The stack as the kernel leaves it: argc, then the argv pointers.
__attribute__((noreturn, used)) void begin(const long* stack) {
  long action = kPowerOff;
  for (long i = 1; i < stack[0]; ++i)
    if (equal((const char*)stack[1 + i], "reset")) action = kRestart;

  // reboot(LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, action, 0); it does not come back.
  register long none __asm__("r10") = 0;
  for (;;)
    __asm__ volatile("syscall"
                     :
                     : "a"((long)kSysReboot), "D"(0xfee1deadL), "S"(672274793L), "d"(action), "r"(none)
                     : "rcx", "r11", "memory");
}

__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");
