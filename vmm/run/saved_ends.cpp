#include "vmm/run/saved_ends.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "vmm/base/cache_folder.h"
#include "vmm/base/log.h"

namespace snug {
namespace {

// What keeps a machine from beginning as another of its kind; "": nothing.
std::string without_template(const Spec& spec) {
  if (!spec.net.empty()) return "it has network interfaces";
  if (!spec.shares.empty() || !spec.root.empty()) return "it has shares";
  if (!spec.consoles.empty() || !spec.channels.empty()) return "it has consoles or channels";
  const bool written = std::ranges::any_of(spec.disks, [](const DiskSpec& disk) { return !disk.readonly; });
  return written ? "it has disks that can be written to" : "";
}

// Of this program: another build may save something else.
bool add_program(TemplateKind& kind) {
  const UniqueFd self(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  return self && kind.add_file("snug", self.get());
}

}  // namespace

Result<SavedEnds> SavedEnds::open(const std::string& folder) {
  SavedEnds ends;
  ends.state = SNUG_TRY(open_file(folder + "/state", O_RDONLY));
  ends.memory = SNUG_TRY(open_file(folder + "/memory", O_RDONLY));
  return ends;
}

Result<MachineConfig::Saved> SavedEnds::read() const {
  struct stat status {};
  if (::fstat(state.get(), &status) != 0) return fail_errno(errno, "state");
  if (!S_ISREG(status.st_mode) || static_cast<uint64_t>(status.st_size) > kStateMax)
    return fail("state: no machine's state has {} bytes", status.st_size);
  MachineConfig::Saved saved{std::vector<std::byte>(static_cast<size_t>(status.st_size)), memory.get()};
  for (size_t at = 0; at < saved.state.size();) {
    const ssize_t count =
        ::pread(state.get(), saved.state.data() + at, saved.state.size() - at, static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "state");
    if (count == 0) return fail("state: it became shorter");
    at += static_cast<size_t>(count);
  }
  return saved;
}

std::optional<TemplateEnds> TemplateEnds::open(const Spec& spec, std::span<const int> boot_files) {
  if (const std::string why = without_template(spec); !why.empty()) {
    log_info("template: not for this machine: {}", why);
    return std::nullopt;
  }
  TemplateKind kind;
  bool known = add_program(kind);
  for (const int file : boot_files) known = known && kind.add_file("file", file);
  utsname host{};
  ::uname(&host);
  kind.add("host", std::string(host.release) + " " + host.version);
  kind.add("machine", fmt::format("{} {} {} {} {} {} {} {}", spec.cpus, spec.memory, spec.kaslr, spec.rng,
                                  spec.packed_rings, static_cast<int>(spec.pci), spec.vsock.cid,
                                  spec.balloon ? fmt::format("{}", *spec.balloon) : "none"));
  kind.add("cmdline", spec.cmdline);
  for (const DiskSpec& disk : spec.disks)
    kind.add("disk", fmt::format("{} {} {}", static_cast<int>(disk.mode), disk.serial, disk.queues));
  const std::string cache = cache_folder();
  if (!known || cache.empty()) return std::nullopt;
  auto store = TemplateStore::open(cache + "/templates", kind.name());
  if (!store) {
    log_info("template: {}", store.error().text());
    return std::nullopt;
  }
  TemplateEnds ends;
  ends.store_ = std::move(*store);
  return ends;
}

std::optional<SavedEnds> TemplateEnds::find() {
  if (auto files = store_.find(); files.state)
    return SavedEnds{std::move(files.state), std::move(files.memory)};
  auto files = store_.begin();
  if (files)
    made_ = std::move(*files);
  else
    log_info("template: {}", files.error().text());
  return std::nullopt;
}

void TemplateEnds::go_behind(WardenLink& warden) {
  store_.leave();
  keep_ = [&warden] { warden.keep_template(); };
  drop_ = [&warden] { warden.drop_template(); };
}

bool TemplateEnds::keep_for_machine() {
  if (!store_.begun()) return false;
  if (auto kept = store_.keep(); !kept) log_info("template: {}", kept.error().text());
  return true;
}

void TemplateEnds::drop_for_machine() {
  if (store_.begun()) return store_.drop();
  store_.forget();
}

}  // namespace snug
