#include "boot/dsdt.h"

#include <fmt/format.h>

#include "vmm/core/address_map.h"

namespace snug::boot {
namespace {

using aml::Code;
using aml::integer;

constexpr uint32_t kPciPins = 4;
// Room for the I/O BARs of old-style devices, above everything in the address map.
constexpr uint16_t kPciIoFirst = 0xc000;
constexpr uint16_t kPciIoLast = 0xffff;

// ACPI 6.5, 8.4: one device per MADT entry, matched by _UID.
Code processors(uint32_t count) {
  Code code;
  for (uint32_t i = 0; i < count; ++i)
    aml::append(code, aml::device(fmt::format("C{:03X}", i), {aml::name("_HID", aml::string("ACPI0007")),
                                                              aml::name("_UID", integer(i))}));
  return code;
}

// ACPI 6.5, 6.2.13: slot and pin to GSI, no link devices.
Code interrupt_routes(uint32_t slots) {
  std::vector<Code> routes;
  for (uint32_t slot = 0; slot < slots; ++slot)
    for (uint32_t pin = 0; pin < kPciPins; ++pin)
      routes.push_back(aml::package(
          {integer(uint64_t{slot} << 16 | 0xffff), integer(pin), integer(0), integer(pci_pin_gsi(pin))}));
  return aml::name("_PRT", aml::package(routes));
}

// PCI Firmware 3.3, 4.5.1: the guest may have everything it asks for but SHPC hot-plug. Without _OSC Linux
// complains and leaves PCI Express features alone.
Code operating_system_capabilities() {
  constexpr uint64_t kGranted = 0xbd;  // hot-plug, PME, AER, capability structure, LTR, DPC
  constexpr uint64_t kUnrecognizedUuid = 1 << 2;
  constexpr uint64_t kMasked = 1 << 4;
  const Code status = aml::path("CDW1");
  const Code control = aml::path("CDW3");
  return aml::method(
      "_OSC", 4, aml::Serialize::kYes,
      {aml::create_dword_field(aml::argument(3), 0, "CDW1"),
       aml::if_then(aml::equal(aml::argument(0), aml::uuid("33db4d5b-1ff7-401c-9657-7441c03dd766")),
                    {aml::create_dword_field(aml::argument(3), 8, "CDW3"),
                     aml::bit_and(control, integer(kGranted), aml::local(0)),
                     aml::if_then(aml::logical_not(aml::equal(aml::local(0), control)),
                                  {aml::bit_or(status, integer(kMasked), status)}),
                     aml::store(aml::local(0), control)}),
       aml::otherwise({aml::bit_or(status, integer(kUnrecognizedUuid), status)}),
       aml::return_value(aml::argument(3))});
}

Code pci_root(const AcpiConfig& config) {
  Code windows =
      aml::join({aml::word_bus(0, 0), aml::io(map::kPortPciConfig, 8), aml::word_io(kPciIoFirst, kPciIoLast),
                 aml::dword_memory(map::kPciMmio32, map::kPciMmio32End - 1)});
  if (config.mmio64_size > 0)
    aml::append(windows,
                aml::qword_memory(config.mmio64_start, config.mmio64_start + config.mmio64_size - 1));
  return aml::device("PCI0",
                     {aml::name("_HID", aml::eisa_id("PNP0A08")), aml::name("_CID", aml::eisa_id("PNP0A03")),
                      aml::name("_SEG", integer(config.pci_segment)), aml::name("_BBN", integer(0)),
                      aml::name("_UID", integer(0)), aml::name("_CRS", aml::resources({windows})),
                      interrupt_routes(config.pci_slots), operating_system_capabilities()});
}

// PCI Firmware 3.3, 4.1.2: the ECAM window is reserved by a motherboard resource, or Linux will not use it.
Code motherboard() {
  return aml::device("MBRD",
                     {aml::name("_HID", aml::eisa_id("PNP0C02")), aml::name("_UID", integer(0)),
                      aml::name("_CRS", aml::resources({aml::memory32_fixed(map::kEcam, map::kEcamSize)}))});
}

Code serial_port() {
  return aml::device(
      "COM1", {aml::name("_HID", aml::eisa_id("PNP0501")), aml::name("_UID", integer(0)),
               aml::name("_CRS", aml::resources({aml::io(map::kPortSerial, 8),
                                                 aml::interrupt(map::kGsiSerial, aml::Trigger::kEdge)}))});
}

Code clock() {
  return aml::device("RTC0", {aml::name("_HID", aml::eisa_id("PNP0B00")),
                              aml::name("_CRS", aml::resources({aml::io(map::kPortRtc, 2)}))});
}

// QEMU, docs/specs/pvpanic.
Code panic_port() {
  return aml::device("PEVT", {aml::name("_HID", aml::string("QEMU0001")),
                              aml::name("_CRS", aml::resources({aml::io(map::kPortPvpanic, 1)}))});
}

// Virtual Machine Generation ID (Microsoft, 2012): sixteen bytes that are others whenever the guest begins
// where another stood. The second of its names is the one that drivers in Linux before 6.10 can find.
Code generation() {
  const Code address =
      aml::package({integer(map::kGenerationId & 0xffffffff), integer(map::kGenerationId >> 32)});
  return aml::device(
      "VGEN", {aml::name("_HID", aml::string("SNUG0001")),
               aml::name("_CID", aml::package({aml::string("VM_Gen_Counter"), aml::string("VMGENCTR")})),
               aml::name("_DDN", aml::string("VM_Gen_Counter")), aml::name("ADDR", address)});
}

// ACPI 6.5, 5.6.9 and 4.8.3.2: an interrupt says "look", the register says what at.
Code power_button_and_events() {
  constexpr uint64_t kPressed = 0x80;
  constexpr uint64_t kChanged = 0x80;
  const Code events = aml::path("EVTS");
  const Code handler =
      aml::method("_EVT", 1, aml::Serialize::kYes,
                  {aml::store(events, aml::local(0)), aml::store(aml::local(0), events),
                   aml::if_then(aml::bit_and(aml::local(0), integer(map::kAcpiEventPowerButton)),
                                {aml::notify(aml::path("PWRB"), kPressed)}),
                   aml::if_then(aml::bit_and(aml::local(0), integer(map::kAcpiEventGeneration)),
                                {aml::notify(aml::path("VGEN"), kChanged)})});
  const Code button = aml::device("PWRB", {aml::name("_HID", aml::eisa_id("PNP0C0C"))});
  return aml::join(
      {button,
       aml::device("GED0",
                   {aml::name("_HID", aml::string("ACPI0013")), aml::name("_UID", integer(0)),
                    aml::name("_CRS", aml::resources({aml::interrupt(map::kGsiAcpi, aml::Trigger::kLevel)})),
                    aml::operation_region("EVTR", aml::RegionSpace::kSystemIo, map::kAcpiEvents, 1),
                    aml::byte_field("EVTR", "EVTS", 8), handler})});
}

// ACPI 6.5, 7.4.2.6: SLP_TYP for the sleep control register.
Code power_off_state() {
  return aml::name("\\_S5", aml::package({integer(map::kAcpiSleepTypeS5), integer(map::kAcpiSleepTypeS5),
                                          integer(0), integer(0)}));
}

}  // namespace

aml::Code build_dsdt(const AcpiConfig& config) {
  Code devices = aml::join(
      {processors(config.cpus), pci_root(config), motherboard(), generation(), power_button_and_events()});
  if (config.serial) aml::append(devices, serial_port());
  if (config.rtc) aml::append(devices, clock());
  if (config.pvpanic) aml::append(devices, panic_port());
  return aml::join({power_off_state(), aml::scope("\\_SB", {devices})});
}

}  // namespace snug::boot
