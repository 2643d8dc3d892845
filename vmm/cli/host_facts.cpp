#include "vmm/cli/host_facts.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "vmm/cli/commands.h"
#include "vmm/cli/snapshot_disks.h"
#include "vmm/kvm/cpuid.h"
#include "vmm/kvm/kvm.h"

namespace snug::cli {
namespace {

using nlohmann::json;

constexpr const char* kCpu = "cpuid";
constexpr const char* kDisks = "disks";
constexpr const char* kSnug = "snug";
constexpr size_t kEntriesMax = 512;

using Words = std::array<uint32_t, 6>;  // function, index, EAX, EBX, ECX, EDX

Result<std::vector<kvm_cpuid_entry2>> cpu_here() {
  const auto kvm = SNUG_TRY(kvm::Kvm::open());
  return kvm::host_cpuid(kvm);
}

Result<std::vector<kvm_cpuid_entry2>> cpu_of(const json& list) {
  std::vector<kvm_cpuid_entry2> entries;
  const auto is_number = [](const json& word) { return word.is_number_unsigned() && word <= UINT32_MAX; };
  bool good = list.is_array() && list.size() <= kEntriesMax;
  for (size_t i = 0; good && i < list.size(); ++i) {
    const json& words = list[i];
    good =
        words.is_array() && words.size() == std::tuple_size_v<Words> && std::ranges::all_of(words, is_number);
    if (!good) break;
    const auto all = words.get<Words>();
    kvm_cpuid_entry2 entry{};
    entry.function = all[0];
    entry.index = all[1];
    entry.eax = all[2];
    entry.ebx = all[3];
    entry.ecx = all[4];
    entry.edx = all[5];
    entries.push_back(entry);
  }
  if (!good) return fail("what it says of its CPU cannot be read");
  return entries;
}

}  // namespace

Result<std::string> host_facts(const json& disks) {
  json cpuid = json::array();
  for (const kvm_cpuid_entry2& entry : SNUG_TRY(cpu_here()))
    cpuid.push_back(Words{entry.function, entry.index, entry.eax, entry.ebx, entry.ecx, entry.edx});
  const json facts{{kSnug, version_text()}, {kCpu, cpuid}, {kDisks, disks}};
  return facts.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<void> check_host_facts(std::string_view facts) {
  const json told = json::parse(facts, nullptr, false);
  if (!told.is_object()) return fail("what it must find here cannot be read");
  if (const auto cpuid = told.find(kCpu); cpuid != told.end()) {
    const auto wanted = SNUG_TRY(cpu_of(*cpuid));
    const auto here = SNUG_TRY(cpu_here());
    if (const kvm_cpuid_entry2* other = kvm::first_difference(wanted, here))
      return fail_with_hint(
          fmt::format(
              "this host gives its guests another CPU than the one that it comes from (CPUID {:#x}, {:#x})",
              uint32_t{other->function}, uint32_t{other->index}),
          "send it to a host with the same CPU and kernel");
  }
  const auto disks = told.find(kDisks);
  return disks != told.end() ? check_disks_elsewhere(*disks) : Result<void>{};
}

}  // namespace snug::cli
