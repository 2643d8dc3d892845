// Where a kernel is put at random: what the guest and its files have to say in the matter. Any thread.
#pragma once

#include <span>
#include <string_view>

#include "boot/kaslr.h"

namespace snug {

// Whether the kernel's command line says so: "nokaslr", Linux's own word for it.
bool forbids_kaslr(std::string_view cmdline);

// Random numbers of the host's, and room above the kernel for these initrds (open files, borrowed). With one
// that has no size yet, such as a pipe, the kernel stays where it was linked to, and only its virtual
// addresses move.
boot::Placement random_placement(std::span<const int> initrd_fds);

}  // namespace snug
