#include "boot/acpi.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string_view>

#include "boot/acpi_layout.h"
#include "boot/dsdt.h"
#include "vmm/base/checked.h"

namespace snug::boot {
namespace {

constexpr std::array<char, 6> kOemId{'S', 'N', 'U', 'G', ' ', ' '};
constexpr size_t kTableAlignment = 16;

// ACPI 6.5, 5.2.9.3 "IA-PC Boot Architecture Flags". Not set: legacy devices, 8042, MSI not supported.
constexpr uint16_t kVgaNotPresent = 1 << 2;
constexpr uint16_t kNoAspm = 1 << 4;
constexpr uint16_t kNoCmosRtc = 1 << 5;

// ACPI 6.5, table 5.10 "Fixed ACPI Description Table Fixed Feature Flags".
constexpr uint32_t kWbinvd = 1 << 0;
constexpr uint32_t kProcC1 = 1 << 2;
constexpr uint32_t kNoFixedPowerButton = 1 << 4;
constexpr uint32_t kNoFixedSleepButton = 1 << 5;
constexpr uint32_t kNoFixedRtcWake = 1 << 6;
constexpr uint32_t kResetRegister = 1 << 10;
constexpr uint32_t kHardwareReduced = 1 << 20;

// A sum over all bytes that must come out as zero.
uint8_t checksum(std::span<const std::byte> bytes) {
  const unsigned sum = std::accumulate(bytes.begin(), bytes.end(), 0u, [](unsigned total, std::byte b) {
    return total + static_cast<unsigned>(b);
  });
  return static_cast<uint8_t>(0u - sum);
}

AcpiHeader make_header(std::string_view signature, uint8_t revision, size_t length) {
  AcpiHeader header{};
  std::copy_n(signature.data(), 4, header.signature.data());
  header.length = static_cast<uint32_t>(length);
  header.revision = revision;
  header.oem_id = kOemId;
  header.oem_table_id = {'S', 'N', 'U', 'G', ' ', ' ', ' ', ' '};
  header.oem_revision = 1;
  header.creator_id = {'S', 'N', 'U', 'G'};
  header.creator_revision = 1;
  return header;
}

template <class T>
void append(std::vector<std::byte>& bytes, const T& value) {
  const auto raw = std::as_bytes(std::span(&value, 1));
  bytes.insert(bytes.end(), raw.begin(), raw.end());
}

// Tables one behind the other; the RSDP's place is kept free in front.
class Blob {
 public:
  Blob() : bytes_(sizeof(AcpiRsdp)) {}

  // Appends a table, fills in its length and checksum; returns its gpa.
  uint64_t add(std::vector<std::byte> table) {
    const auto length = static_cast<uint32_t>(table.size());
    store_le(std::span(table).subspan(offsetof(AcpiHeader, length), 4), length);
    table[offsetof(AcpiHeader, checksum)] = static_cast<std::byte>(checksum(table));
    bytes_.resize(*checked_align_up(bytes_.size(), kTableAlignment));
    const uint64_t gpa = map::kAcpiTables + bytes_.size();
    bytes_.insert(bytes_.end(), table.begin(), table.end());
    return gpa;
  }

  std::vector<std::byte> finish(const AcpiRsdp& rsdp) && {
    std::memcpy(bytes_.data(), &rsdp, sizeof rsdp);
    return std::move(bytes_);
  }

 private:
  std::vector<std::byte> bytes_;
};

std::vector<std::byte> make_dsdt(const AcpiConfig& config) {
  std::vector<std::byte> table;
  append(table, make_header("DSDT", 2, 0));  // revision 2: 64-bit integers
  aml::append(table, build_dsdt(config));
  return table;
}

AcpiAddress io_register(uint16_t port) { return {1, 8, 0, 1, port}; }

std::vector<std::byte> make_fadt(const AcpiConfig& config, uint64_t dsdt) {
  AcpiFadt fadt{};
  fadt.header = make_header("FACP", 6, sizeof fadt);
  fadt.minor_version = 5;
  fadt.boot_architecture = static_cast<uint16_t>(kVgaNotPresent | kNoAspm | (config.rtc ? 0 : kNoCmosRtc));
  fadt.flags = kWbinvd | kProcC1 | kNoFixedPowerButton | kNoFixedSleepButton | kNoFixedRtcWake |
               kResetRegister | kHardwareReduced;
  fadt.reset_register = io_register(map::kAcpiReset);
  fadt.reset_value = map::kAcpiResetValue;
  fadt.x_dsdt = dsdt;
  fadt.sleep_control = io_register(map::kAcpiSleepControl);
  fadt.sleep_status = io_register(map::kAcpiSleepStatus);
  std::vector<std::byte> table;
  append(table, fadt);
  return table;
}

// 5.2.12. No PCAT_COMPAT: there are no 8259s as far as the guest is concerned.
std::vector<std::byte> make_madt(const AcpiConfig& config) {
  constexpr uint8_t kEnabled = 1;
  constexpr uint8_t kAllProcessors = 0xff;
  std::vector<std::byte> table;
  append(table, AcpiMadt{make_header("APIC", 6, 0), static_cast<uint32_t>(map::kLapic), 0});
  for (uint32_t i = 0; i < config.cpus; ++i)
    append(table, AcpiMadtLapic{0, sizeof(AcpiMadtLapic), static_cast<uint8_t>(i), static_cast<uint8_t>(i),
                                kEnabled});
  append(table, AcpiMadtIoapic{1, sizeof(AcpiMadtIoapic), 0, 0, static_cast<uint32_t>(map::kIoapic), 0});
  append(table, AcpiMadtLapicNmi{4, sizeof(AcpiMadtLapicNmi), kAllProcessors, 0, 1});
  return table;
}

std::vector<std::byte> make_mcfg(const AcpiConfig& config) {
  AcpiMcfg mcfg{};
  mcfg.header = make_header("MCFG", 1, sizeof mcfg);
  mcfg.base = map::kEcam;
  mcfg.segment = config.pci_segment;
  mcfg.last_bus = static_cast<uint8_t>(map::kEcamSize / kMiB - 1);
  std::vector<std::byte> table;
  append(table, mcfg);
  return table;
}

std::vector<std::byte> make_xsdt(std::span<const uint64_t> tables) {
  std::vector<std::byte> table;
  append(table, make_header("XSDT", 1, 0));
  for (const uint64_t gpa : tables) append(table, le64(gpa));
  return table;
}

AcpiRsdp make_rsdp(uint64_t xsdt) {
  AcpiRsdp rsdp{};
  rsdp.signature = {'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '};
  rsdp.oem_id = kOemId;
  rsdp.revision = 2;
  rsdp.length = sizeof rsdp;
  rsdp.xsdt = xsdt;
  const auto bytes = std::as_bytes(std::span(&rsdp, 1));
  constexpr size_t kAcpi1Size = 20;
  rsdp.checksum = checksum(bytes.first(kAcpi1Size));
  rsdp.extended_checksum = checksum(bytes);
  return rsdp;
}

Result<void> check(const AcpiConfig& config) {
  if (config.cpus < 1 || config.cpus > kAcpiCpusMax)
    return fail("ACPI tables for {} CPUs: 1 to {} are possible", config.cpus, kAcpiCpusMax);
  if (config.pci_slots < 1 || config.pci_slots > 32)
    return fail("ACPI tables for {} PCI slots: 1 to 32 are possible", config.pci_slots);
  if (!checked_add(config.mmio64_start, config.mmio64_size))
    return fail("a 64-bit PCI window of {:#x} bytes at {:#x}", config.mmio64_size, config.mmio64_start);
  return {};
}

}  // namespace

Result<std::vector<std::byte>> build_acpi_tables(const AcpiConfig& config) {
  SNUG_TRY(check(config));
  Blob blob;
  const uint64_t dsdt = blob.add(make_dsdt(config));
  const std::array<uint64_t, 3> tables{blob.add(make_fadt(config, dsdt)), blob.add(make_madt(config)),
                                       blob.add(make_mcfg(config))};
  const uint64_t xsdt = blob.add(make_xsdt(tables));
  std::vector<std::byte> bytes = std::move(blob).finish(make_rsdp(xsdt));
  if (bytes.size() > map::kAcpiTablesEnd - map::kAcpiTables)
    return fail("ACPI tables of {} bytes do not fit into their area", bytes.size());
  return bytes;
}

Result<void> write_acpi_tables(const GuestMemory& memory, std::span<const std::byte> tables) {
  if (tables.size() > map::kAcpiTablesEnd - map::kAcpiTables || !memory.write(map::kAcpiTables, tables))
    return fail("ACPI tables of {} bytes do not fit at {:#x}", tables.size(), map::kAcpiTables);
  return {};
}

}  // namespace snug::boot
