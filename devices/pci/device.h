// What a PCI function shows to the root complex. The registers behind its BARs are another matter: a device
// that has some is a BusDevice too, and the machine puts it on the MMIO bus.
//
// Owner: the machine, as Synced<Device>; it outlives the root complex.
// Thread: the root complex calls from vCPU threads, with the device's lock held. A device never calls the
// root complex.
#pragma once

#include "devices/pci/config_space.h"

namespace snug {

class PciDevice {
 public:
  explicit PciDevice(const PciIdentity& identity) : config_(identity) {}
  virtual ~PciDevice() = default;

  ConfigSpace& config() { return config_; }

  // The guest is about to read / has written configuration bytes [offset, offset + length), at most 4 and
  // never across a multiple of 4. For registers that are more than memory: MSI-X message control, a window
  // into a BAR (virtio 1.2, 4.1.4.9). Most devices need neither.
  virtual void before_config_read(uint16_t /*offset*/, size_t /*length*/) {}
  virtual void after_config_write(uint16_t /*offset*/, size_t /*length*/) {}

  // Whether configuration space can be read as memory: no read has to be prepared for at present. May change
  // with a write.
  virtual bool config_is_memory() const { return true; }

  // A BAR has moved, or memory decoding was switched: `now` is what the guest has set, which may be any
  // address, also one where RAM or another device is.
  virtual void bar_changed(const PciBar& /*before*/, const PciBar& /*now*/) {}

 protected:
  ConfigSpace config_;
};

}  // namespace snug
