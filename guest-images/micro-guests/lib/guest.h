// What every micro-guest in C stands on: ports and MMIO, the serial port, interrupts, time, memory, the
// command line. It runs at CPL 3 with every port open; physical addresses are virtual ones, all of the first
// 4 GiB, or 5 for those that are entered by PVH.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

// The program; when it returns the machine is powered off.
void guest_main(void);

// --- ports and MMIO: one instruction each, so that every host can emulate it -------------------------

#define SNUG_PORT(width, type)                                            \
  static inline type in##width(u16 port) {                                \
    type value;                                                           \
    __asm__ volatile("in %1, %0" : "=a"(value) : "Nd"(port) : "memory");  \
    return value;                                                         \
  }                                                                       \
  static inline void out##width(u16 port, type value) {                   \
    __asm__ volatile("out %0, %1" : : "a"(value), "Nd"(port) : "memory"); \
  }
SNUG_PORT(8, u8)
SNUG_PORT(16, u16)
SNUG_PORT(32, u32)

#define SNUG_MMIO(width, type)                                                \
  static inline type read##width(u64 address) {                               \
    type value;                                                               \
    __asm__ volatile("mov (%1), %0" : "=r"(value) : "r"(address) : "memory"); \
    return value;                                                             \
  }                                                                           \
  static inline void write##width(u64 address, type value) {                  \
    __asm__ volatile("mov %0, (%1)" : : "r"(value), "r"(address) : "memory"); \
  }
SNUG_MMIO(8, u8)
SNUG_MMIO(16, u16)
SNUG_MMIO(32, u32)
SNUG_MMIO(64, u64)

static inline void fence(void) { __asm__ volatile("mfence" : : : "memory"); }
static inline void pause(void) { __asm__ volatile("pause" : : : "memory"); }

// --- the serial port ---------------------------------------------------------------------------------

void print(const char* text);
void print_number(u64 value);
void print_hex(u64 value);
// A line that was sent to the guest, without its end; longer ones are cut.
void read_line(char* line, size_t size);

// --- interrupts --------------------------------------------------------------------------------------

enum { kFirstVector = 0x40, kVectors = 64 };
// How often each vector has come.
extern volatile u64 interrupts[kVectors];

// --- time --------------------------------------------------------------------------------------------

u64 now(void);        // ticks of the TSC
u64 ticks_khz(void);  // per millisecond, from the KVM clock; 0: not known
// Repeats `condition` until it is true, or false for much longer than anything here takes.
#define WAIT_FOR(condition)                                                          \
  ({                                                                                 \
    const u64 wait_start = now();                                                    \
    bool wait_done;                                                                  \
    while (!(wait_done = (condition)) && now() - wait_start < wait_bound()) pause(); \
    wait_done;                                                                       \
  })
u64 wait_bound(void);

// --- memory and text ---------------------------------------------------------------------------------

// Zeroed; from a pool of 8 MiB. Never fails: the guest ends when there is none left.
void* allocate(size_t size, size_t alignment);
// Where the pool stands, to go back to.
size_t pool_mark(void);
void pool_release(size_t mark);

static inline u64 address_of(const volatile void* at) { return (u64)(uintptr_t)at; }
bool same(const void* a, const void* b, size_t size);
bool equal(const char* a, const char* b);
bool starts_with(const char* text, const char* start);

// The value of "NAME=NUMBER" on the kernel command line, decimal or 0x; `otherwise` when it is not there.
u64 option(const char* name, u64 otherwise);

// --- the end -----------------------------------------------------------------------------------------

// Ends the machine with exit status (code << 1) | 1.
_Noreturn void debug_exit(u8 code);
_Noreturn void give_up(const char* why);

void* memset(void* to, int value, size_t size);
void* memcpy(void* restrict to, const void* restrict from, size_t size);
