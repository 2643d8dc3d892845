// snug-setup: what programs expect of a Linux before the first of them runs: file systems, the names below
// /dev that devtmpfs lacks, the loopback interface. One exec instead of a dozen; no C library. What is there
// already, or what the kernel does not have, is passed over.

enum {
  kSysIoctl = 16,
  kSysSocket = 41,
  kSysExit = 60,
  kSysMkdir = 83,
  kSysSymlink = 88,
  kSysMount = 165,
  kNoSuid = 2,         // MS_NOSUID
  kNoDevices = 4,      // MS_NODEV
  kNoPrograms = 8,     // MS_NOEXEC
  kInternet = 2,       // AF_INET
  kDatagram = 2,       // SOCK_DGRAM
  kSetFlags = 0x8914,  // SIOCSIFFLAGS
  kUp = 1,             // IFF_UP
};

static long system_call(long number, const void* a, const void* b, const void* c, long d, const void* e) {
  register long r10 __asm__("r10") = d;
  register const void* r8 __asm__("r8") = e;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                   : "rcx", "r11", "memory");
  return result;
}

static const void* number(long value) { return (const void*)value; }

static void mount(const char* type, const char* folder, long flags, const char* options) {
  system_call(kSysMount, type, folder, type, flags, options);
}

static void link(const char* target, const char* name) { system_call(kSysSymlink, target, name, 0, 0, 0); }

static void raise_loopback(void) {
  // struct ifreq: a name of 16 bytes, then the flags.
  static const struct {
    char name[16];
    short flags;
    char rest[22];
  } request = {"lo", kUp, ""};
  const long fd = system_call(kSysSocket, number(kInternet), number(kDatagram), 0, 0, 0);
  if (fd >= 0) system_call(kSysIoctl, number(fd), number(kSetFlags), &request, 0, 0);
}

__attribute__((noreturn, used)) void begin(void) {
  mount("proc", "/proc", 0, 0);
  mount("sysfs", "/sys", 0, 0);
  mount("devtmpfs", "/dev", 0, 0);
  system_call(kSysMkdir, "/dev/pts", number(0755), 0, 0, 0);
  system_call(kSysMkdir, "/dev/shm", number(01777), 0, 0, 0);
  mount("devpts", "/dev/pts", kNoSuid | kNoPrograms, "gid=5,mode=620,ptmxmode=666");
  mount("tmpfs", "/dev/shm", kNoSuid | kNoDevices, "mode=1777");
  link("/proc/self/fd", "/dev/fd");
  link("/proc/self/fd/0", "/dev/stdin");
  link("/proc/self/fd/1", "/dev/stdout");
  link("/proc/self/fd/2", "/dev/stderr");
  raise_loopback();
  for (;;) system_call(kSysExit, 0, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start: xor %ebp, %ebp\n and $-16, %rsp\n call begin\n");
