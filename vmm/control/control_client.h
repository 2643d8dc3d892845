// Asks a running machine through its control interface. Blocks, with a time limit. Any thread.
#pragma once

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "vmm/base/result.h"
#include "vmm/control/http.h"
#include "vmm/control/vm_directory.h"

namespace snug {

// Without a limit: until it answers or ends. Errors: it is not there; it does not answer; what it says is no
// answer. An answer with an error status is no error here. `descriptors`: they go with the request.
Result<HttpResponse> ask_machine(const FoundVm& vm, std::string_view method, std::string_view path,
                                 std::string_view body = {},
                                 std::optional<std::chrono::milliseconds> limit = std::chrono::seconds(5),
                                 std::span<const int> descriptors = {});

// The process that serves a machine's control socket: who it is, the kernel says. Nothing when it is gone.
std::optional<int> serving_process(const FoundVm& vm);

}  // namespace snug
