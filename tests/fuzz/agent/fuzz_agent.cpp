// Any bytes as what a client says to the agent: everything that it decodes before it does anything. What it
// would do (start a command, write files) is left out: the input would choose it.
#include <cstdint>
#include <string_view>

#include "vmm/base/assertion.h"
#include "vmm/protocol/messages.h"
#include "vmm/protocol/tree_entry.h"

namespace {

using namespace snug::protocol;

void decode_all(const Frame& frame) {
  SNUG_ASSERT(frame.payload.size() <= kMaxPayload);
  if (const auto hello = decode_hello(frame.payload)) SNUG_ASSERT(hello->lowest <= hello->highest);
  if (const auto put = decode_put(frame.payload)) SNUG_ASSERT(!put->destination.empty());
  if (const auto get = decode_get(frame.payload)) SNUG_ASSERT(get->find('\0') == std::string::npos);
  if (const auto entry = decode_entry(frame.payload)) {
    SNUG_ASSERT(entry->name.find('/') == std::string::npos && entry->name != "..");
    SNUG_ASSERT((entry->mode & ~07777u) == 0 && entry->mtime_ns < 1'000'000'000);
    if (entry->kind == EntryKind::kHardLink)
      SNUG_ASSERT(("/" + entry->target + "/").find("/../") == std::string::npos);
    // It survives being sent again.
    std::string again;
    put_entry(again, *entry);
    FrameReader reader;
    reader.feed(again);
    SNUG_ASSERT(decode_entry(reader.next()->payload)->name == entry->name);
  }
  if (const auto problem = decode_problem(frame.payload)) SNUG_ASSERT(problem->text.size() <= 1024);
  (void)decode_file_end(frame.payload);
  (void)decode_power(frame.payload);
  if (const auto mount = decode_mount(frame.payload)) {
    SNUG_ASSERT(mount->target.starts_with('/') && mount->file.find('/') == std::string::npos);
    std::string again;
    put_mount(again, *mount);
    FrameReader reader;
    reader.feed(again);
    SNUG_ASSERT(decode_mount(reader.next()->payload) == mount);
  }
  (void)decode_number64(frame.payload);
  (void)decode_number32(frame.payload);
  (void)decode_resize(frame.payload);
  const ErrorMessage error = decode_error(frame.payload);
  SNUG_ASSERT(!error.text.empty() && error.text.size() <= 1024);
  if (const auto status = decode_exit(frame.payload))
    SNUG_ASSERT(!status->signalled || (status->value >= 1 && status->value <= 64));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view bytes(reinterpret_cast<const char*>(data), size);
  FrameReader reader;
  ExecAssembler assembler;
  bool assembling = true;
  // In pieces of growing size, as a stream may come.
  for (size_t piece = 1; !bytes.empty(); piece = piece * 2 + 1) {
    reader.feed(bytes.substr(0, piece));
    bytes.remove_prefix(std::min(piece, bytes.size()));
    while (const auto frame = reader.next()) {
      decode_all(*frame);
      if (!assembling) continue;
      const auto result = assembler.take(*frame);
      assembling = result == ExecAssembler::Result::kMore;
      if (result != ExecAssembler::Result::kComplete) continue;
      SNUG_ASSERT(!assembler.request().arguments.empty());
      // It survives being sent again.
      std::string again;
      SNUG_ASSERT(put_exec(again, assembler.request()));
    }
  }
  return 0;
}
