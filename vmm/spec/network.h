// What the keys about networks mean together.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "vmm/spec/spec.h"

namespace snug {

// The interfaces that the guest gets, each with its address and with the ports that are published through it.
std::vector<NetSpec> network_interfaces(const Spec& spec);

// What is wrong with them as a whole, for a person; nothing when they are fine.
std::vector<std::string> network_problems(const Spec& spec);

// The descriptors of NetSpec::tap; nothing when it is an interface's name.
std::optional<std::vector<int>> tap_descriptors(const std::string& tap);

// Stable for a name and a place among the interfaces; locally administered.
MacAddress default_mac(const std::string& machine_name, size_t index);

}  // namespace snug
