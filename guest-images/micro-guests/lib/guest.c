#include "guest.h"

enum {
  kPortSerial = 0x3f8,
  kPortDebugExit = 0xf4,
  kLineStatus = 5,
  kPoolBytes = 8 << 20,
};

// The KVM clock (Linux, Documentation/virt/kvm/x86/msr.rst).
typedef struct {
  volatile u32 version;
  u32 padding;
  u64 tsc_timestamp;
  u64 system_time;
  volatile u32 multiplier;
  volatile int8_t shift;
  u8 flags;
} KvmClock;

extern KvmClock kvm_clock;
extern const u8* zero_page;
extern u8 interrupt_stubs[], exception_stubs[], spurious_stub[];
extern u64 idt[512];

static u8 pool[kPoolBytes] __attribute__((aligned(4096)));
static size_t pool_used;

// GCC calls these two whatever it is told.
void* memset(void* to, int value, size_t size) {
  u8* bytes = to;
  for (size_t i = 0; i < size; ++i) bytes[i] = (u8)value;
  return to;
}

void* memcpy(void* restrict to, const void* restrict from, size_t size) {
  for (size_t i = 0; i < size; ++i) ((u8*)to)[i] = ((const u8*)from)[i];
  return to;
}

void print(const char* text) {
  for (; *text != 0; ++text) out8(kPortSerial, (u8)*text);
}

static void print_digits(u64 value, unsigned base) {
  char digits[21];
  size_t at = sizeof digits - 1;
  digits[at] = 0;
  do {
    digits[--at] = "0123456789abcdef"[value % base];
    value /= base;
  } while (value != 0);
  print(digits + at);
}

void print_number(u64 value) { print_digits(value, 10); }

void print_hex(u64 value) {
  print("0x");
  print_digits(value, 16);
}

static void open_serial(void) {
  static bool open = false;
  if (open) return;
  open = true;
  out8(kPortSerial + 2, 0x07);  // FIFOs on and empty
  out8(kPortSerial + 4, 0x0b);  // DTR, RTS, OUT2
  out8(kPortSerial + 1, 0x01);  // data available: the port is open
}

void read_line(char* line, size_t size) {
  open_serial();
  size_t length = 0;
  for (;;) {
    while ((in8(kPortSerial + kLineStatus) & 1) == 0) pause();
    const char byte = (char)in8(kPortSerial);
    if (byte == '\n' || byte == '\r') break;
    if (length + 1 < size) line[length++] = byte;
  }
  line[length] = 0;
}

u64 now(void) {
  u32 low, high;
  __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
  return (u64)high << 32 | low;
}

u64 ticks_khz(void) {
  if (kvm_clock.multiplier == 0) return 0;
  const u64 khz = ((u64)1000000 << 32) / kvm_clock.multiplier;
  return kvm_clock.shift < 0 ? khz << -kvm_clock.shift : khz >> kvm_clock.shift;
}

// 20 s, or what is that at 3 GHz.
u64 wait_bound(void) {
  const u64 khz = ticks_khz();
  return 20000 * (khz != 0 ? khz : 3000000);
}

void* allocate(size_t size, size_t alignment) {
  const size_t at = (pool_used + alignment - 1) & ~(alignment - 1);
  if (at + size > kPoolBytes) give_up("the guest's pool is empty");
  pool_used = at + size;
  return memset(pool + at, 0, size);
}

size_t pool_mark(void) { return pool_used; }
void pool_release(size_t mark) { pool_used = mark; }

bool same(const void* a, const void* b, size_t size) {
  for (size_t i = 0; i < size; ++i)
    if (((const volatile u8*)a)[i] != ((const volatile u8*)b)[i]) return false;
  return true;
}

bool equal(const char* a, const char* b) {
  for (; *a == *b; ++a, ++b)
    if (*a == 0) return true;
  return false;
}

bool starts_with(const char* text, const char* start) {
  for (; *start != 0; ++text, ++start)
    if (*text != *start) return false;
  return true;
}

static u64 parse_number(const char* text) {
  unsigned base = 10;
  if (starts_with(text, "0x")) {
    base = 16;
    text += 2;
  }
  u64 value = 0;
  for (;; ++text) {
    unsigned digit = 99;
    if (*text >= '0' && *text <= '9') digit = (unsigned)(*text - '0');
    if (*text >= 'a' && *text <= 'f') digit = (unsigned)(*text - 'a' + 10);
    if (digit >= base) return value;
    value = value * base + digit;
  }
}

u64 option(const char* name, u64 otherwise) {
  // Linux boot protocol: cmd_line_ptr.
  const char* text = (const char*)(uintptr_t)(*(const u32*)(zero_page + 0x228));
  size_t length = 0;
  while (name[length] != 0) ++length;
  for (; *text != 0; ++text) {
    if (starts_with(text, name) && text[length] == '=') return parse_number(text + length + 1);
    while (*text != 0 && *text != ' ') ++text;
    if (*text == 0) break;
  }
  return otherwise;
}

void debug_exit(u8 code) {
  out8(kPortDebugExit, code);
  for (;;) pause();
}

void give_up(const char* why) {
  print("micro-guest: ");
  print(why);
  print("\r\n");
  debug_exit(1);
}

// The frame of an exception: its number, then what the processor has pushed, an error code first for some.
void exception_report(const u64* frame) {
  print("micro-guest: exception ");
  for (unsigned i = 0; i < 4; ++i) {
    print_hex(frame[i]);
    print(" ");
  }
  print("\r\n");
  debug_exit(2);
}

// Intel SDM vol. 3, 6.14.1: 64-bit interrupt gates.
static void set_gate(unsigned vector, const u8* handler) {
  const u64 at = address_of(handler);
  idt[2 * vector] = (at & 0xffff) | (u64)0x08 << 16 | (u64)0x8e00 << 32 | (at >> 16 & 0xffff) << 48;
  idt[2 * vector + 1] = at >> 32;
}

void guest_begin(void) {
  for (unsigned i = 0; i < 32; ++i) set_gate(i, exception_stubs + 16 * i);
  for (unsigned i = 0; i < kVectors; ++i) set_gate(kFirstVector + i, interrupt_stubs + 32 * i);
  set_gate(0xff, spurious_stub);
  guest_main();
}
