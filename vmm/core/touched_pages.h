// Pages of RAM that a guest writes to as soon as it goes on from an image: known from the one before, they
// are its own before it runs. Found one by one, each is read from the image first, then copied, and the
// hypervisor told to forget the first: three faults for one page.
//
// Thread: any.
#pragma once

#include <string>
#include <string_view>

#include "vmm/core/guest_memory.h"
#include "vmm/core/memory_image.h"

namespace snug {

// Those that have been written to since map_memory_image(), as a text for own_pages(); "": none, or more than
// are worth it, or this kernel does not tell. While the guest runs, too: what it does meanwhile may be
// missing.
std::string touched_pages(const GuestMemory& memory, const UniqueFd& pagemap);

// Behind map_memory_image(): makes pages the guest's own. `touched` may be anything: what is none of RAM's is
// passed over, and so is what is more than 16 MiB. A kernel that cannot do that (before 5.14) does not.
void own_pages(const GuestMemory& memory, std::string_view touched);

}  // namespace snug
