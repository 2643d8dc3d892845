// Any bytes on a machine's control socket: an answer that can be read back, or more is waited for; what comes
// in pieces is taken as what comes at once. The same bytes as an answer must not hurt a client.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "vmm/base/assertion.h"
#include "vmm/control/control_api.h"

namespace {

class Target final : public snug::ControlTarget {
 public:
  snug::VmInfo info() const override { return {.name = "fuzz", .state = "running"}; }
  snug::VmUsage usage() const override { return {}; }
  bool ask_guest() override { return false; }
  bool guest_has_answered() const override { return true; }
  snug::Result<void> pause() override { return snug::fail("no"); }
  snug::Result<void> resume() override { return {}; }
  snug::Result<void> press_power_button() override { return {}; }
  snug::Result<void> stop(std::optional<std::chrono::milliseconds> grace) override {
    SNUG_ASSERT(!grace || (grace->count() >= 0 && grace->count() <= 86'400'000));
    return {};
  }
  void kill() override {}
  void snapshot(snug::SnapshotFiles, std::function<void(snug::Result<snug::SnapshotTaken>)> done) override {
    done(snug::fail("no"));
  }
  snug::Result<void> send(snug::SnapshotFiles, snug::SendingEnds) override { return snug::fail("no"); }
  void update(std::function<void(snug::Error)> failed) override {
    if (failed) failed({"no", {}});
  }
};

// Feeds pieces of `step` bytes until the reader has enough.
bool feed(snug::HttpReader& reader, std::string_view text, size_t step) {
  bool more = true;
  while (!text.empty() && more) {
    more = reader.feed(text.substr(0, step));
    text.remove_prefix(std::min(step, text.size()));
  }
  return more;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)snug::parse_http_response(text);
  snug::HttpReader bytewise;
  snug::HttpReader reader;
  const bool more = feed(reader, text, std::max<size_t>(size, 1));
  // Bytes behind a request are an error only when they come with it: no more is read afterwards.
  if (feed(bytewise, text, 1) != more) SNUG_ASSERT(more || reader.error() == 400);
  if (more) return 0;
  Target target;
  snug::ControlAnswer answer;
  if (reader.error() != 0) {
    answer = snug::control_error(reader.error(), "no");
  } else {
    answer = snug::answer_control_request(target, reader.request());
  }
  if (answer.waits) return 0;
  const auto back = snug::parse_http_response(snug::http_response(answer.status, answer.json));
  SNUG_ASSERT(back && back->status == answer.status);
  SNUG_ASSERT(nlohmann::json::parse(back->body).is_object());
  return 0;
}
