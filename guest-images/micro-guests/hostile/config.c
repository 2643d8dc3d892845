// Configuration space by both of its windows, in every width and alignment.
#include "hostile.h"

enum { kAddress = 0xcf8, kData = 0xcfc, kConventional = 256 };

// Bytes that must never change: ids, class, header type, capability pointer.
static Outcome unchanged(Device* device, u32 id, u32 class_code) {
  REQUIRE(pci_read32(device->slot, 0) == id, "the id is written");
  REQUIRE(pci_read32(device->slot, 8) == class_code, "the class is written");
  return NULL;
}

static Outcome write_everything(Device* device, unsigned width, u64 value) {
  const u32 id = pci_read32(device->slot, 0), class_code = pci_read32(device->slot, 8);
  for (u16 offset = 0; offset < kConventional; ++offset) {
    const u64 at = ecam(device->slot, offset);
    if (width == 1) write8(at, (u8)value);
    if (width == 2) write16(at, (u16)value);
    if (width == 4) write32(at, (u32)value);
    if (width == 8) write64(at, value);
  }
  TRY(unchanged(device, id, class_code));
  const u64 home = home_of(device);
  pci_write32(device->slot, kPciBar0, (u32)home);
  pci_write16(device->slot, kPciCommand, kPciMemory | kPciBusMaster);
  return expect_lives(device);
}

static Outcome bytes_of_ones(Device* device) { return write_everything(device, 1, ~(u64)0); }
static Outcome words_of_ones(Device* device) { return write_everything(device, 2, ~(u64)0); }
static Outcome dwords_of_ones(Device* device) { return write_everything(device, 4, ~(u64)0); }
static Outcome qwords_of_ones(Device* device) { return write_everything(device, 8, ~(u64)0); }
static Outcome bytes_of_zeroes(Device* device) { return write_everything(device, 1, 0); }
static Outcome words_of_zeroes(Device* device) { return write_everything(device, 2, 0); }
static Outcome dwords_of_zeroes(Device* device) { return write_everything(device, 4, 0); }
static Outcome qwords_of_zeroes(Device* device) { return write_everything(device, 8, 0); }

static Outcome every_read(Device* device) {
  for (u16 offset = 0; offset < kConventional; ++offset) {
    const u64 at = ecam(device->slot, offset);
    (void)read8(at);
    (void)read16(at);
    (void)read32(at);
    (void)read64(at);
  }
  return expect_works(device);
}

static Outcome capabilities_lead_to_an_end(Device* device) {
  unsigned count = 0;
  for (u16 at = pci_read8(device->slot, kPciCapabilities); at != 0;
       at = pci_read8(device->slot, (u16)(at + 1))) {
    pci_write16(device->slot, at, 0xffff);
    REQUIRE(++count < 48, "the list of capabilities does not end");
  }
  return expect_works(device);
}

static Outcome extended_space(Device* device) {
  for (u16 offset = kConventional; offset < 4096; offset += 97) {
    write32(ecam(device->slot, offset), 0);
    (void)read64(ecam(device->slot, offset));
  }
  REQUIRE(read32(ecam(device->slot, 0x100)) == 0xffffffff, "there are extended capabilities");
  // Over the end of this function and into the next.
  for (u16 before = 1; before < 8; ++before) {
    (void)read64(ecam(device->slot, 4096) - before);
    write64(ecam(device->slot, 4096) - before, 0);
  }
  return expect_works(device);
}

static Outcome other_functions(Device* device) {
  for (u16 function = 1; function < 8; ++function) {
    const u64 at = ecam(device->slot, 0) + ((u64)function << 12);
    write32(at + kPciBar0, 0xffffffff);
    write32(at + kPciCommand, 0);
    REQUIRE(read32(at) == 0xffffffff, "a function that is none answers");
  }
  return expect_works(device);
}

static Outcome absent_slots(Device* device) {
  for (u8 slot = 20; slot < kSlots; ++slot) {
    write32(ecam(slot, kPciCommand), 0xffffffff);
    REQUIRE(read32(ecam(slot, 0)) == 0xffffffff, "a slot that is empty answers");
  }
  return expect_works(device);
}

static Outcome ends_of_ecam(Device* device) {
  for (u16 before = 1; before <= 8; ++before) {
    (void)read64(ECAM + 0x100000 - before);
    write64(ECAM + 0x100000 - before, ~(u64)0);
    (void)read64(ECAM - before);
    write64(ECAM - before, ~(u64)0);
  }
  REQUIRE(read32(ECAM) == 0x00081b36, "the host bridge is gone");
  return expect_works(device);
}

static Outcome host_bridge_written(Device* device) {
  for (u16 offset = 0; offset < kConventional; offset += 4) write32(ecam(0, offset), 0xffffffff);
  for (u16 offset = 0; offset < kConventional; offset += 4) write32(ecam(0, offset), 0);
  REQUIRE(read32(ECAM) == 0x00081b36, "the host bridge is gone");
  return expect_works(device);
}

static Outcome other_buses(Device* device) {
  for (u32 bus = 1; bus < 256; bus += 51) {
    out32(kAddress, 0x80000000u | bus << 16 | (u32)device->slot << 11);
    REQUIRE(in32(kData) == 0xffffffff, "a bus that is none answers");
    out32(kData, 0);
  }
  return expect_works(device);
}

static Outcome ports_of_any_width(Device* device) {
  out32(kAddress, 0x80000000u | (u32)device->slot << 11);
  for (u16 port = kAddress; port < kAddress + 8; ++port) {
    (void)in8(port);
    (void)in16(port);
    (void)in32(port);
    out8(port, 0xff);
    out16(port, 0xffff);
  }
  for (u16 port = kAddress - 3; port < kAddress + 8; ++port) out32(port, 0xffffffff);
  out8(kAddress + 1, 0x06);  // where some chipsets reset the machine
  return expect_works(device);
}

static Outcome address_not_enabled(Device* device) {
  out32(kAddress, (u32)device->slot << 11);
  REQUIRE(in32(kData) == 0xffffffff, "a disabled address answers");
  out32(kData, 0);
  out32(kAddress, 0xffffffff);
  (void)in32(kData);
  out32(kData, 0xffffffff);
  return expect_works(device);
}

static const Case cases[] = {
    {"bytes_of_ones", bytes_of_ones},
    {"words_of_ones", words_of_ones},
    {"dwords_of_ones", dwords_of_ones},
    {"qwords_of_ones", qwords_of_ones},
    {"bytes_of_zeroes", bytes_of_zeroes},
    {"words_of_zeroes", words_of_zeroes},
    {"dwords_of_zeroes", dwords_of_zeroes},
    {"qwords_of_zeroes", qwords_of_zeroes},
    {"every_read", every_read},
    {"capabilities_lead_to_an_end", capabilities_lead_to_an_end},
    {"extended_space", extended_space},
    {"other_functions", other_functions},
    {"absent_slots", absent_slots},
    {"ends_of_ecam", ends_of_ecam},
    {"host_bridge_written", host_bridge_written},
    {"other_buses", other_buses},
    {"ports_of_any_width", ports_of_any_width},
    {"address_not_enabled", address_not_enabled},
};
const CaseSet config_cases = CASE_SET("config", EVERY_DEVICE, cases);
