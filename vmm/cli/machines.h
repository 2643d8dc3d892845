// Machines that run, asked and described for the commands. Main thread.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "vmm/base/result.h"
#include "vmm/control/vm_directory.h"

namespace snug::cli {

// One that runs. Errors: there is none of that name; it has ended.
Result<FoundVm> find_alive(const std::string& name);

// A request and its JSON answer. Errors: the connection; an answer with an error status, in its own words.
Result<nlohmann::json> ask_json(const FoundVm& vm, std::string_view method, std::string_view path,
                                const std::string& body = {});
// The member as a number; 0 when it is none.
double number_in(const nlohmann::json& object, const char* member);

struct MachineEnd {
  int exit_status;
  std::string message;
};
// Waits for it. Errors: the machine was killed, and its status with it.
Result<MachineEnd> end_of(const FoundVm& vm);

// SIGKILL, and waits. Errors: no permission; it does not end.
Result<void> end_process(int pid, const FoundVm& vm);

// All that is known, of one that runs or of one that has ended.
Result<nlohmann::json> describe_machine(const FoundVm& vm);

// The table of `snug ps`. Exit status.
int list(bool all, bool names_only, bool as_json);

// "512M", "1.5G".
std::string size_text(double bytes);
int fail_command(const Error& error);

}  // namespace snug::cli
