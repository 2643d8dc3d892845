#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "vmm/cli/commands.h"
#include "vmm/cli/guest_images.h"
#include "vmm/cli/put.h"
#include "vmm/host/cgroup_advice.h"
#include "vmm/host/cgroup_scope.h"
#include "vmm/jail/steps.h"
#include "vmm/kvm/cpuid.h"
#include "vmm/kvm/kernel_mode.h"
#include "vmm/kvm/kvm.h"

namespace snug::cli {
namespace {

void say(const char* mark, const std::string& what) { put("{:>7}  {}\n", mark, what); }
void ok(const std::string& what) { say("ok", what); }
void note(const std::string& what) { say("note", what); }
void problem(const std::string& what, const std::string& todo) {
  say("PROBLEM", what);
  if (!todo.empty()) say("", "-> " + todo);
}

bool on_path(const std::string& program) {
  const char* path = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe): single-threaded command
  std::istringstream folders(path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');)
    if (::access((folder + "/" + program).c_str(), X_OK) == 0) return true;
  return false;
}

void check_tool(const std::string& program, const std::string& purpose) {
  if (on_path(program))
    ok(fmt::format("{} ({})", program, purpose));
  else
    note(fmt::format("{} is not installed ({}): sudo apt install {}", program, purpose, program));
}

void check_host() {
  utsname host{};
  ::uname(&host);
  int major = 0;
  int minor = 0;
  if (std::sscanf(host.release, "%d.%d", &major, &minor) == 2 && (major < 5 || (major == 5 && minor < 10)))
    problem(fmt::format("Linux {}: older than 5.10", host.release), "update the host's kernel");
  else
    ok(fmt::format("Linux {} on {}", host.release, host.machine));
}

void check_nested() {
  for (const char* module : {"kvm_intel", "kvm_amd"}) {
    std::ifstream file(fmt::format("/sys/module/{}/parameters/nested", module));
    std::string value;
    if (!(file >> value)) continue;
    const bool on = value == "Y" || value == "1";
    note(on ? fmt::format("{}: guests of guests are possible (nested is on)", module)
            : fmt::format("{}: nested is off, guests cannot run VMs themselves; to change it: "
                          "echo 'options {} nested=1' | sudo tee /etc/modprobe.d/kvm-nested.conf",
                          module, module));
  }
}

// True when Linux guests run on this KVM.
bool check_kvm() {
  const auto kvm = kvm::Kvm::open();
  if (!kvm) {
    problem(kvm.error().message, kvm.error().hint);
    return false;
  }
  ok(fmt::format("/dev/kvm (up to {} vCPUs)", kvm->max_vcpus()));
  if (const auto cpuid = kvm::supported_cpuid(*kvm)) ok("CPU vendor " + kvm::cpuid_vendor(*cpuid));
  if (!kvm->has_tsc_deadline())
    problem("KVM has no TSC deadline timer: guests cannot calibrate their timers",
            "update the host's kernel");
  const auto probe = kvm::probe_kernel_mode(*kvm);
  if (!probe) {
    problem(probe.error().message, probe.error().hint);
    return false;
  }
  if (probe->mode == kvm::KernelMode::kEmulated) {
    problem(fmt::format("this KVM emulates guest kernel mode ({:.0f} ns per pass of a two-instruction loop, "
                        "hardware needs less than 1): Linux cannot boot on it",
                        probe->ns_per_pass),
            "use a host with VT-x or AMD-V, or nested virtualisation; or the lab: tools/lab -- snug run ...");
    return false;
  }
  ok(fmt::format("guest kernel mode runs on the CPU ({:.1f} ns per pass of a two-instruction loop)",
                 probe->ns_per_pass));
  check_nested();
  return true;
}

// What guests would be kept in here. They run with whatever part of it there is, so it is no problem that
// some is missing.
void check_jail() {
  const auto entry = jail::try_out();
  if (!entry) return note("jail: " + entry.error().text());
  for (const std::string& step : entry->done) ok("jail: " + step);
  for (const jail::MissingStep& step : entry->missing) {
    note(fmt::format("jail: {}: {} (guests run without it)", step.name, step.why));
    if (!step.hint.empty()) say("", "-> " + step.hint);
  }
}

// What machines may be limited in. One with limits does not run without them, any other does.
void check_limits() {
  CgroupFiles files;
  const LimitsSurvey survey = survey_limits({files});
  if (!survey.had.empty()) ok(fmt::format("limits: {} ({})", keys_of(survey.had), survey.by));
  for (const LimitsSurvey::Missing& missing : survey.missing) {
    note(fmt::format("limits: no {} here: {}", missing.keys, missing.why.message));
    if (!missing.why.hint.empty()) say("", "-> " + missing.why.hint);
  }
}

}  // namespace

int doctor() {
  check_host();
  const bool runs = check_kvm();
  check_jail();
  check_limits();
  if (const auto image = find_image(""))
    ok(fmt::format("guest image: {}, {}", image->name, image->kernel));
  else
    note("no guest image: snug image build stock makes one in a minute (or give --kernel)");
  check_tool("passt", "network without privileges, net: user");
  check_tool("qemu-system-x86_64", "tools/lab, for hosts that cannot boot Linux guests");
  check_tool("iasl", "tests of the ACPI tables");
  put("\n{}\n", runs ? "Linux guests run here." : "Linux guests do not run here.");
  return runs ? 0 : 1;
}

}  // namespace snug::cli
