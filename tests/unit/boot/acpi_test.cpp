#include "boot/acpi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "boot/acpi_layout.h"
#include "vmm/base/checked.h"

namespace snug::boot {
namespace {

using Bytes = std::vector<std::byte>;

uint8_t sum(std::span<const std::byte> bytes) {
  unsigned total = 0;
  for (const std::byte b : bytes) total += static_cast<unsigned>(b);
  return static_cast<uint8_t>(total);
}

template <class T>
T take(std::span<const std::byte> bytes) {
  T value;
  EXPECT_GE(bytes.size(), sizeof value);
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

// A guest's view of the blob: addresses and lengths are followed, checksums checked.
class Tables {
 public:
  explicit Tables(const AcpiConfig& config) : blob_(*build_acpi_tables(config)) {
    const auto rsdp = take<AcpiRsdp>(blob_);
    EXPECT_EQ(std::string_view(rsdp.signature.data(), 8), "RSD PTR ");
    EXPECT_EQ(rsdp.revision, 2);
    EXPECT_EQ(sum(std::span(blob_).first(20)), 0);
    EXPECT_EQ(sum(std::span(blob_).first(rsdp.length)), 0);
    const Bytes xsdt = add(rsdp.xsdt);
    for (size_t at = sizeof(AcpiHeader); at < xsdt.size(); at += 8)
      add(take<le64>(std::span(xsdt).subspan(at)));
    add(take<AcpiFadt>(tables_.at("FACP")).x_dsdt);
  }

  const Bytes& operator[](const std::string& signature) const { return tables_.at(signature); }
  const std::map<std::string, Bytes>& all() const { return tables_; }

 private:
  Bytes add(uint64_t gpa) {
    const auto at = std::span(blob_).subspan(gpa - map::kAcpiTables);
    const auto header = take<AcpiHeader>(at);
    const auto table = at.first(header.length);
    const std::string signature(header.signature.data(), 4);
    EXPECT_EQ(sum(table), 0) << signature;
    return tables_[signature] = Bytes(table.begin(), table.end());
  }

  Bytes blob_;
  std::map<std::string, Bytes> tables_;
};

AcpiConfig full_config(uint32_t cpus) {
  return {
      .cpus = cpus, .mmio64_start = uint64_t{1} << 36, .mmio64_size = map::kPciMmio64Size, .pvpanic = true};
}

TEST(Acpi, TablesAreFoundAndSumToZero) {
  for (const uint32_t cpus : {1u, 2u, 64u, kAcpiCpusMax}) {
    const Tables tables(full_config(cpus));
    EXPECT_EQ(tables.all().size(), 5u);
  }
}

TEST(Acpi, Fadt) {
  const auto fadt = take<AcpiFadt>(Tables({})["FACP"]);
  EXPECT_EQ(fadt.header.revision, 6);
  EXPECT_EQ(fadt.minor_version, 5);
  EXPECT_TRUE(fadt.flags & 1 << 20) << "hardware-reduced";
  EXPECT_TRUE(fadt.flags & 1 << 10) << "reset register";
  EXPECT_EQ(fadt.reset_register.address, map::kAcpiReset);
  EXPECT_EQ(fadt.reset_value, map::kAcpiResetValue);
  EXPECT_EQ(fadt.sleep_control.address, map::kAcpiSleepControl);
  EXPECT_EQ(fadt.sleep_status.address, map::kAcpiSleepStatus);
  EXPECT_FALSE(fadt.boot_architecture & 1 << 1) << "8042";
  EXPECT_FALSE(fadt.boot_architecture & 1 << 5) << "there is an RTC";
  EXPECT_TRUE(take<AcpiFadt>(Tables({.rtc = false})["FACP"]).boot_architecture & 1 << 5);
}

TEST(Acpi, MadtHasEveryCpuOnce) {
  const Tables tables({.cpus = 64});
  const auto madt = std::span(tables["APIC"]);
  EXPECT_EQ(take<AcpiMadt>(madt).flags, 0u) << "no 8259s";
  uint32_t cpus = 0;
  uint32_t others = 0;
  for (size_t at = sizeof(AcpiMadt); at < madt.size();) {
    const auto type = static_cast<uint8_t>(madt[at]);
    const auto length = static_cast<uint8_t>(madt[at + 1]);
    ASSERT_GE(length, 2);
    if (type == 0) {
      const auto lapic = take<AcpiMadtLapic>(madt.subspan(at));
      EXPECT_EQ(lapic.apic_id, cpus);
      EXPECT_EQ(lapic.processor_uid, cpus);
      EXPECT_EQ(lapic.flags, 1u);
      ++cpus;
    } else {
      ++others;
    }
    at += length;
  }
  EXPECT_EQ(cpus, 64u);
  EXPECT_EQ(others, 2u);
}

TEST(Acpi, Mcfg) {
  const auto mcfg = take<AcpiMcfg>(Tables({})["MCFG"]);
  EXPECT_EQ(mcfg.base, map::kEcam);
  EXPECT_EQ(mcfg.first_bus, 0);
  EXPECT_EQ(mcfg.last_bus, 0);
  EXPECT_EQ(mcfg.segment, 0);
  AcpiConfig apart;
  apart.pci_segment = 1;
  EXPECT_EQ(take<AcpiMcfg>(Tables(apart)["MCFG"]).segment, 1);
}

TEST(Acpi, RefusesConfigsOutOfRange) {
  EXPECT_FALSE(build_acpi_tables({.cpus = 0}));
  EXPECT_FALSE(build_acpi_tables({.cpus = kAcpiCpusMax + 1}));
  EXPECT_FALSE(build_acpi_tables({.pci_slots = 0}));
  EXPECT_FALSE(build_acpi_tables({.pci_slots = 33}));
  EXPECT_FALSE(build_acpi_tables({.mmio64_start = UINT64_MAX, .mmio64_size = 2}));
}

TEST(Acpi, IsDeterministic) {
  EXPECT_EQ(*build_acpi_tables(full_config(3)), *build_acpi_tables(full_config(3)));
}

// What the ACPI project's own compiler says: disassembled and compiled again without a word.
class Iasl : public testing::TestWithParam<uint32_t> {
 protected:
  void SetUp() override {
    if (std::system("iasl -v >/dev/null 2>&1") != 0) GTEST_SKIP() << "iasl is not installed (acpica-tools)";
    std::string name = (std::filesystem::temp_directory_path() / "snug-acpi-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }
  // Exit status and everything printed.
  std::pair<int, std::string> run(const std::string& arguments) {
    const std::string command = "cd " + folder_.string() + " && iasl " + arguments + " 2>&1";
    FILE* pipe = ::popen(command.c_str(), "r");
    std::string output;
    std::array<char, 4096> buffer;
    while (const size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe))
      output.append(buffer.data(), count);
    return {::pclose(pipe), output};
  }

  std::filesystem::path folder_;
};
INSTANTIATE_TEST_SUITE_P(Cpus, Iasl, testing::Values(1, 2, 64, kAcpiCpusMax));

TEST_P(Iasl, AcceptsEveryTable) {
  const Tables tables(full_config(GetParam()));
  for (const auto& [signature, table] : tables.all()) {
    std::ofstream(folder_ / (signature + ".dat"), std::ios::binary)
        .write(reinterpret_cast<const char*>(table.data()), static_cast<std::streamsize>(table.size()));
    const auto [status, output] = run("-d " + signature + ".dat");
    EXPECT_EQ(status, 0) << output;
    EXPECT_THAT(output, testing::Not(testing::ContainsRegex("[Ww]arning|[Ee]rror|[Ii]nvalid"))) << output;
    const auto [again, text] = run(signature + ".dsl");
    EXPECT_EQ(again, 0) << text;
    EXPECT_THAT(text, testing::HasSubstr("0 Errors, 0 Warnings, 0 Remarks")) << text;
  }
}

}  // namespace
}  // namespace snug::boot
