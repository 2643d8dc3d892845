// The two ways by which a guest reaches configuration space: ECAM, a megabyte of MMIO, and configuration
// mechanism #1, eight I/O ports.
//
// Owner: the machine, as Synced<>; the root complex must outlive them. Thread: vCPU threads, lock held.
#pragma once

#include "devices/pci/root.h"
#include "vmm/core/bus.h"

namespace snug {

// Registered at map::kEcam, PciRoot::kEcamSize bytes.
class PciEcam final : public BusDevice {
 public:
  explicit PciEcam(Synced<PciRoot>& root) : root_(root) {}
  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  Synced<PciRoot>& root_;
};

// Configuration mechanism #1 (PCI Local Bus 3.0, 3.2.2.3.2), registered at map::kPortPciConfig, 8 ports:
// CONFIG_ADDRESS, a latch that only whole dword accesses reach, then CONFIG_DATA. Anything else, such as a
// byte access to the reset control that some chipsets have at 0xcf9, finds nothing there.
class PciConfigPorts final : public BusDevice {
 public:
  static constexpr uint64_t kPorts = 8;

  explicit PciConfigPorts(Synced<PciRoot>& root) : root_(root) {}
  void save(SectionWriter& out) const { out.number(address_); }
  void restore(SectionReader& in) { address_ = in.number<uint32_t>(); }
  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  // Where a data access goes; false when it goes nowhere.
  bool locate(uint64_t offset, size_t length, uint64_t& ecam_offset) const;

  Synced<PciRoot>& root_;
  uint32_t address_ = 0;
};

}  // namespace snug
