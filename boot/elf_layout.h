// The ELF structures as files have them (System V gABI 4.1, "Object Files"). Unaligned, little-endian.
#pragma once

#include <array>
#include <cstdint>

#include "vmm/base/endian.h"

namespace snug::boot {

struct ElfIdent {
  std::array<uint8_t, 4> magic;
  uint8_t file_class;  // 1: 32 bit, 2: 64 bit
  uint8_t data;        // 1: little-endian
  uint8_t version;
  uint8_t os_abi;
  std::array<uint8_t, 8> padding;
  le16 type;
  le16 machine;
  le32 object_version;
};
static_assert(sizeof(ElfIdent) == 24);

struct Elf64Header {
  ElfIdent ident;
  le64 entry, phoff, shoff;
  le32 flags;
  le16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
static_assert(sizeof(Elf64Header) == 64);

struct Elf32Header {
  ElfIdent ident;
  le32 entry, phoff, shoff;
  le32 flags;
  le16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
static_assert(sizeof(Elf32Header) == 52);

struct Elf64Phdr {
  le32 type, flags;
  le64 offset, vaddr, paddr, filesz, memsz, align;
};
static_assert(sizeof(Elf64Phdr) == 56);

struct Elf32Phdr {
  le32 type, offset, vaddr, paddr, filesz, memsz, flags, align;
};
static_assert(sizeof(Elf32Phdr) == 32);

// Followed by the owner's name and the descriptor, each padded.
struct ElfNoteHeader {
  le32 name_size, descriptor_size, type;
};
static_assert(sizeof(ElfNoteHeader) == 12);

constexpr uint8_t kElfClass32 = 1;
constexpr uint8_t kElfClass64 = 2;
constexpr uint8_t kElfLittleEndian = 1;

constexpr uint16_t kElfTypeObject = 1;
constexpr uint16_t kElfTypeExecutable = 2;
constexpr uint16_t kElfTypeShared = 3;
constexpr uint16_t kElfTypeCore = 4;

constexpr uint16_t kElfMachine386 = 3;
constexpr uint16_t kElfMachineX86_64 = 62;

constexpr uint32_t kElfLoad = 1;
constexpr uint32_t kElfInterpreter = 3;
constexpr uint32_t kElfNote = 4;
constexpr uint32_t kElfThreadLocal = 7;

}  // namespace snug::boot
