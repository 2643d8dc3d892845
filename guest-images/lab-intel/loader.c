// What GRUB starts on the lab's CD, by Multiboot 0.6.96: unpacks Debian's kernel, LZ4 instead of xz, and enters it by PVH
// (Linux include/xen/interface/hvm/start_info.h). The kernel's own unpacking takes Bochs longer than the rest of the boot.
// Modules: the kernel's ELF in LZ4's legacy frame, the initrd. Memory as GRUB found it, paging off, 32 bits.
#include <stdint.h>

struct __attribute__((packed)) Info {
  uint32_t flags, lower_kib, upper_kib, device, words, module_count, modules, symbols[4], map_bytes, map;
};
struct Module {
  uint32_t start, end, words, reserved;
};
struct __attribute__((packed)) MapEntry {
  uint32_t entry_bytes;  // of what follows
  uint64_t start, bytes;
  uint32_t type;
};

struct StartInfo {
  uint32_t magic, version, flags, module_count;
  uint64_t modules, words, rsdp, map;
  uint32_t map_entries, reserved;
};
struct StartModule {
  uint64_t start, bytes, words, reserved;
};
struct StartMapEntry {
  uint64_t start, bytes;
  uint32_t type, reserved;
};

struct ElfHeader {
  uint8_t identity[16];
  uint16_t type, machine;
  uint32_t version;
  uint64_t entry, segments, sections;
  uint32_t flags;
  uint16_t header_bytes, segment_bytes, segment_count;
};
struct Segment {
  uint32_t type, flags;
  uint64_t offset, virtual_address, address, file_bytes, bytes, alignment;
};
struct Note {
  uint32_t name_bytes, bytes, type;
};

enum { kLoad = 1, kNote = 4, kPvhEntry = 18, kMapEntries = 64 };

// Where the unpacked ELF lies until its parts are where they belong: above them, below what GRUB puts at the top.
#define SCRATCH 0x10000000u
#define LZ4_LEGACY 0x184c2102u

static struct StartMapEntry map[kMapEntries];
static struct StartModule initrd;
static struct StartInfo start_info;

static void say(const char* text) {
  for (; *text; ++text) __asm__ volatile("outb %b0, %w1" ::"a"(*text), "d"(0x3f8));
}

static void stop(const char* why) {
  say("lab: the loader on the CD: ");
  say(why);
  say("\r\n");
  for (;;) __asm__ volatile("cli; hlt");
}

static void copy(void* to, const void* from, uint32_t bytes) {
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes)::"memory");
}

static void clear(void* to, uint32_t bytes) {
  __asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(0) : "memory");
}

static uint32_t longer(const uint8_t** in, uint32_t length) {
  if (length != 15) return length;
  uint8_t more;
  do length += more = *(*in)++;
  while (more == 255);
  return length;
}

// One block of LZ4 (lz4_Block_format.md); returns the end of what it wrote.
static uint8_t* unpack_block(const uint8_t* in, const uint8_t* end, uint8_t* out) {
  for (;;) {
    const uint8_t token = *in++;
    uint32_t length = longer(&in, token >> 4);
    copy(out, in, length);
    out += length;
    in += length;
    if (in >= end) return out;
    const uint32_t distance = in[0] | in[1] << 8;
    in += 2;
    length = longer(&in, token & 15) + 4;
    copy(out, out - distance, length);  // byte by byte: they may overlap
    out += length;
  }
}

static void unpack(const struct Module* module, uint8_t* out) {
  const uint8_t *in = (const uint8_t*)module->start, *end = (const uint8_t*)module->end;
  if (*(const uint32_t*)in != LZ4_LEGACY) stop("the kernel is not LZ4");
  for (in += 4; in + 4 < end;) {
    const uint32_t bytes = *(const uint32_t*)in;
    out = unpack_block(in + 4, in + 4 + bytes, out);
    in += 4 + bytes;
  }
  if ((uint32_t)out > SCRATCH * 2) stop("the kernel is too large");
}

static uint32_t pvh_entry(const uint8_t* notes, uint32_t bytes) {
  for (uint32_t at = 0; at < bytes;) {
    const struct Note* note = (const struct Note*)(notes + at);
    at += sizeof *note + ((note->name_bytes + 3) & ~3u);
    if (note->type == kPvhEntry) return *(const uint32_t*)(notes + at);
    at += (note->bytes + 3) & ~3u;
  }
  return 0;
}

// Brings the parts of the ELF to where they belong; returns the entry.
static uint32_t lay_out(const uint8_t* elf) {
  const struct ElfHeader* header = (const struct ElfHeader*)elf;
  const struct Segment* segment = (const struct Segment*)(elf + (uint32_t)header->segments);
  uint32_t entry = 0;
  for (uint16_t i = 0; i < header->segment_count; ++i, ++segment) {
    const uint8_t* from = elf + (uint32_t)segment->offset;
    if (segment->type == kNote && entry == 0) entry = pvh_entry(from, segment->file_bytes);
    if (segment->type != kLoad) continue;
    uint8_t* to = (uint8_t*)(uint32_t)segment->address;
    if ((uint32_t)to + segment->bytes > SCRATCH) stop("the kernel does not lie below 256 MiB");
    copy(to, from, segment->file_bytes);
    clear(to + (uint32_t)segment->file_bytes, segment->bytes - segment->file_bytes);
  }
  if (entry == 0) stop("the kernel has no PVH entry");
  return entry;
}

static uint32_t take_map(const struct Info* info) {
  uint32_t count = 0;
  for (uint32_t at = info->map; at < info->map + info->map_bytes && count < kMapEntries; ++count) {
    const struct MapEntry* entry = (const struct MapEntry*)at;
    map[count] = (struct StartMapEntry){entry->start, entry->bytes, entry->type, 0};
    at += entry->entry_bytes + 4;
  }
  return count;
}

__attribute__((used)) static void load(const struct Info* info) {
  const struct Module* modules = (const struct Module*)info->modules;
  if (info->module_count != 2) stop("GRUB handed over no kernel and initrd");
  for (int i = 0; i < 2; ++i)
    if (modules[i].end > SCRATCH && modules[i].start < 2 * SCRATCH) stop("GRUB has loaded in the middle of memory");
  unpack(&modules[0], (uint8_t*)SCRATCH);

  // Behind the unpacked kernel: what lies low is in the way of its parts.
  initrd.bytes = modules[1].end - modules[1].start;
  initrd.start = SCRATCH + (SCRATCH - initrd.bytes) / 4096 * 4096;
  copy((void*)(uint32_t)initrd.start, (const void*)modules[1].start, initrd.bytes);

  static char words[2048];
  for (uint32_t i = 0; i + 1 < sizeof words && (words[i] = ((const char*)info->words)[i]); ++i) continue;
  start_info = (struct StartInfo){.magic = 0x336ec578, .version = 1, .module_count = 1, .modules = (uint32_t)&initrd,
                                  .words = (uint32_t)words, .map = (uint32_t)map, .map_entries = take_map(info)};
  const uint32_t entry = lay_out((const uint8_t*)SCRATCH);
  __asm__ volatile("jmp *%0" ::"a"(entry), "b"(&start_info));
}

static uint8_t stack[4096] __attribute__((used, aligned(16)));

__attribute__((section(".multiboot"), used, aligned(4))) static const uint32_t multiboot[] = {0x1badb002, 3, -(0x1badb002 + 3)};

// Entered with the address of the Info in ebx.
__asm__(
    ".globl _start\n"
    "_start: cli\n"
    "  cld\n"
    "  mov $stack + 4096, %esp\n"
    "  push %ebx\n"
    "  call load\n");
