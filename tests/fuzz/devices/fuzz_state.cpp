// The state of a machine as somebody else has made it. The first byte: 0 a whole file; 1 and 2 a section with
// the state of a split or a packed ring, which is popped to its end afterwards.
#include <array>
#include <cstdint>
#include <vector>

#include "devices/virtio/queue.h"
#include "vmm/base/assertion.h"
#include "vmm/core/state.h"

namespace {

using namespace snug;

constexpr uint64_t kRam = uint64_t{1} << 20;
constexpr uint16_t kSize = 8;

void read_file(std::span<const std::byte> bytes) {
  auto state = StateReader::parse({bytes.begin(), bytes.end()});
  if (!state) return;
  for (const char* name : {"machine", "vcpu0", "serial", "virtio0"}) {
    auto section = state->section(name, 1);
    if (!section) continue;
    (void)section->number<uint16_t>();
    (void)section->text(16);
    (void)section->flag();
    (void)section->finish();
  }
  (void)state->finish();
}

void read_ring(std::span<const std::byte> bytes, bool packed) {
  static const GuestMemory memory = std::move(*GuestMemory::create(kRam));
  const VirtQueueLayout layout{.size = kSize, .descriptors = 0x1000, .available = 0x2000, .used = 0x3000};
  VirtQueue queue(memory);
  SNUG_ASSERT(queue.start(layout, {.indirect = true, .event_idx = true, .packed = packed}).empty());
  SectionReader in("ring", 1, bytes);
  queue.restore(in);
  if (!in.finish()) return;
  VirtChain chain;
  unsigned popped = 0;
  while (queue.pop(chain) == VirtQueue::Pop::kChain) {
    SNUG_ASSERT(++popped <= 2 * kSize);
    for (const auto* buffers : {&chain.readable, &chain.writable})
      for (const VirtBuffer& buffer : *buffers) SNUG_ASSERT(memory.contains(buffer.gpa, buffer.length));
    (void)queue.push(chain.head, 0);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto rest = std::as_bytes(std::span(data, size)).subspan(1);
  if (data[0] == 0) read_file(rest);
  if (data[0] == 1 || data[0] == 2) read_ring(rest, data[0] == 2);
  return 0;
}
