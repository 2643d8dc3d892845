// The port bus and the MMIO bus: address ranges to devices. One lock per device, taken here, so a device's
// own code has none. Ranges never overlap.
//
// Thread: add() and remove() while the world is stopped or during set-up, read() and write() from any vCPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/synced.h"

namespace snug {

// What a device shows to a bus. Called with the device's lock held. `offset` is relative to the range that
// was registered, and offset + data.size() never exceeds it; everything about the access but that is the
// guest's: any width (1, 2, 4 or 8, rarely others), any alignment.
class BusDevice {
 public:
  virtual ~BusDevice() = default;
  virtual void read(uint64_t offset, std::span<std::byte> data) = 0;
  virtual void write(uint64_t offset, std::span<const std::byte> data) = 0;
};

struct AddressRange {
  uint64_t start;
  uint64_t size;
};

class Bus {
 public:
  // `name`: for messages ("port", "MMIO").
  explicit Bus(std::string name) : name_(std::move(name)) {}

  // Errors: an empty or wrapping range, an overlap with a range that is there (both are named).
  // The device must outlive the bus or be removed first.
  template <class Device>
  Result<void> add(AddressRange range, std::string device_name, Synced<Device>& device) {
    return add_entry({range, std::move(device_name), &device.unguarded(), &device.mutex()});
  }
  // Removes the range that starts at `start`; nothing happens when there is none.
  void remove(uint64_t start);

  // False when no device claims the whole access: reads then give all ones, writes go nowhere.
  bool read(uint64_t address, std::span<std::byte> data);
  bool write(uint64_t address, std::span<const std::byte> data);

  // The device at an address for reports, "" when there is none.
  std::string device_at(uint64_t address) const;

 private:
  struct Entry {
    AddressRange range;
    std::string name;
    BusDevice* device;
    std::mutex* mutex;
  };

  Result<void> add_entry(Entry entry);
  // Needs lock_ held. nullptr unless one entry holds all of [address, address + length).
  const Entry* find(uint64_t address, uint64_t length) const;

  std::string name_;
  mutable std::shared_mutex lock_;
  std::vector<Entry> entries_;  // ascending by start
};

}  // namespace snug
