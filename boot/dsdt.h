// The DSDT's definition block: what \_SB holds. Used by acpi.cpp.
#pragma once

#include "boot/acpi.h"
#include "boot/aml.h"

namespace snug::boot {

// AML without the table header. `config` has been checked.
aml::Code build_dsdt(const AcpiConfig& config);

}  // namespace snug::boot
