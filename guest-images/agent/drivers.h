// The drivers of a kernel that has them in modules.
#pragma once

#include <string>

namespace snug::agent {

// `modules`: has NAME.ko and ID.list, names a line, in the order in which they are loaded, ID being a PCI
// device's as /sys has it, or "any". `devices`: /sys/bus/pci/devices. What is loaded or built in already is
// passed over.
void load_drivers(const std::string& modules, const std::string& devices);

// Those of one list only, such as "root": what a root on a device takes.
void load_drivers_of(const std::string& modules, const std::string& id);

}  // namespace snug::agent
