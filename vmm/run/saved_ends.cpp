#include "vmm/run/saved_ends.h"

#include <cpuid.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "vmm/base/cache_folder.h"
#include "vmm/base/log.h"

namespace snug {
namespace {

// What KVM shows of it to guests. (The rest of what is behind these numbers is the host's kernel's.)
std::string processor() {
  std::string text;
  for (const auto& [leaf, subleaf] : {std::pair{0U, 0U}, {1U, 0U}, {7U, 0U}, {0xdU, 1U}, {0x80000001U, 0U}}) {
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    __get_cpuid_count(leaf, subleaf, &a, &b, &c, &d);
    // Which of its processors this is.
    if (leaf == 1) b = 0;
    text += fmt::format("{:x} {:x} {:x} {:x} ", a, b, c, d);
  }
  return text;
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

Result<std::vector<std::byte>> read_state_file(int file) {
  struct stat status {};
  if (::fstat(file, &status) != 0) return fail_errno(errno, "state");
  if (!S_ISREG(status.st_mode) || static_cast<uint64_t>(status.st_size) > kStateMax)
    return fail("state: no machine's state has {} bytes", status.st_size);
  std::vector<std::byte> state(static_cast<size_t>(status.st_size));
  for (size_t at = 0; at < state.size();) {
    const ssize_t count = ::pread(file, state.data() + at, state.size() - at, static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "state");
    if (count == 0) return fail("state: it became shorter");
    at += static_cast<size_t>(count);
  }
  return state;
}

Result<MachineConfig::Saved> SavedEnds::read() const {
  struct stat status {};
  MachineConfig::Saved saved{SNUG_TRY(read_state_file(state.get())), memory.get(), {}, same};
  if (touched && ::fstat(touched.get(), &status) == 0 &&
      status.st_size <= static_cast<off_t>(warden::kTextMax)) {
    saved.touched.resize(static_cast<size_t>(status.st_size));
    const ssize_t count = ::pread(touched.get(), saved.touched.data(), saved.touched.size(), 0);
    saved.touched.resize(count > 0 ? static_cast<size_t>(count) : 0);
  }
  return saved;
}

std::optional<TemplateEnds> TemplateEnds::open(const Spec& spec, const MachineKind& kind,
                                               const BootFiles& boot) {
  if (const std::string why = kind.without_template(); !why.empty()) {
    // Said where somebody has asked for one.
    if (spec.templates == TemplateMode::kTrue) log_info("template: not for this machine: {}", why);
    return std::nullopt;
  }
  TemplateKind name;
  bool known = add_program(name);
  for (const int file : boot.files) known = known && name.add_file("file", file);
  utsname host{};
  ::uname(&host);
  name.add("host", std::string(host.release) + " " + host.version);
  name.add("processor", processor());
  kind.describe(name, boot.image_bytes);
  const std::string cache = cache_folder();
  if (!known || cache.empty()) return std::nullopt;
  auto store = TemplateStore::open(cache + "/templates", name.name());
  if (!store) {
    log_info("template: {}", store.error().text());
    return std::nullopt;
  }
  TemplateEnds ends(kind);
  ends.store_ = std::move(*store);
  ends.refuses_ = spec.templates == TemplateMode::kAuto;
  return ends;
}

std::optional<SavedEnds> TemplateEnds::find() {
  if (auto files = store_.find(); files.state) {
    touched_wanted_ = !files.touched;
    return SavedEnds{std::move(files.state), std::move(files.memory), std::move(files.touched)};
  }
  // One is made of a kind that comes again.
  if (refuses_ && !store_.seen()) return std::nullopt;
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
  kept_ = [&warden]() -> Result<SavedEnds> {
    SavedEnds ends;
    ends.state = SNUG_TRY(warden.kept_template(warden::TemplateFile::kState));
    ends.memory = SNUG_TRY(warden.kept_template(warden::TemplateFile::kMemory));
    return ends;
  };
  keep_touched_ = [&warden](const std::string& touched) { warden.keep_touched(touched); };
}

bool TemplateEnds::keep_for_machine() {
  if (!store_.begun()) return false;
  // The machine has written them: open here as well they would stay for as long as it runs.
  made_ = {};
  if (auto kept = store_.keep(); !kept) log_info("template: {}", kept.error().text());
  return true;
}

bool TemplateEnds::keep_touched_for_machine(std::string_view touched) {
  if (!std::exchange(touched_wanted_, false)) return false;
  store_.keep_touched(touched);
  return true;
}

// Both are of one template: others may take its place meanwhile.
Result<UniqueFd> TemplateEnds::kept_for_machine(warden::TemplateFile file) {
  if (file == warden::TemplateFile::kState) kept_files_ = store_.find();
  UniqueFd& asked = file == warden::TemplateFile::kState ? kept_files_.state : kept_files_.memory;
  if (!asked) return fail("the template is gone");
  return std::move(asked);
}

void TemplateEnds::drop_for_machine() {
  made_ = {};
  if (refuses_) store_.refuse();
  if (store_.begun()) return store_.drop();
  store_.forget();
}

}  // namespace snug
