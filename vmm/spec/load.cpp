#include "vmm/spec/load.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <system_error>

#include "vmm/base/unique_fd.h"
#include "vmm/spec/disks.h"
#include "vmm/spec/file_checks.h"
#include "vmm/spec/limits.h"
#include "vmm/spec/network.h"
#include "vmm/spec/reader.h"
#include "vmm/spec/shares.h"
#include "vmm/spec/units.h"

namespace snug {
namespace {

constexpr size_t kConsolesMax = 4;
constexpr size_t kChannelsMax = 15;
constexpr uint64_t kStorageMin = uint64_t{64} << 20;  // below it, most is what the file system takes itself

struct SpecFile {
  std::string text;
  std::string shown_name;
  std::string base_dir;
};

// Empty when it is gone: relative paths then stay relative.
std::string working_folder() {
  std::error_code error;
  return std::filesystem::current_path(error).string();
}

Result<std::string> read_bounded(int fd) {
  std::string text;
  while (text.size() <= kMaxSpecBytes) {
    const size_t before = text.size();
    text.resize(before + 65536);
    const ssize_t count = ::read(fd, text.data() + before, text.size() - before);
    const int error = errno;
    text.resize(before + static_cast<size_t>(count > 0 ? count : 0));
    if (count < 0 && error == EINTR) continue;
    if (count < 0) return fail("cannot be read: {}", errno_text(error));
    if (count == 0) return text;
  }
  return fail("larger than {} KiB; is this a spec?", kMaxSpecBytes / 1024);
}

Result<SpecFile> read_spec_file(const std::string& path) {
  if (path == "-") return SpecFile{SNUG_TRY(read_bounded(STDIN_FILENO)), "<stdin>", working_folder()};
  struct stat status {};
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!fd || ::fstat(fd.get(), &status) != 0) {
    return fail("{}", errno == ENOENT ? "no such file" : "cannot be opened: " + errno_text(errno));
  }
  if (S_ISDIR(status.st_mode)) return fail("is a folder, not a spec file");
  if (!S_ISREG(status.st_mode) && !S_ISFIFO(status.st_mode)) return fail("is not a regular file");
  std::string folder = working_folder();
  const size_t slash = path.rfind('/');
  if (S_ISREG(status.st_mode) && slash != std::string::npos) {
    const std::string own = path.substr(0, slash == 0 ? 1 : slash);
    folder = own.starts_with('/') || folder.empty() ? own : folder + "/" + own;
  }
  return SpecFile{SNUG_TRY(read_bounded(fd.get())), S_ISREG(status.st_mode) ? path : "<pipe>", folder};
}

void check_files(SpecReader& reader) {
  for (const auto& named : reader.files()) {
    const auto reason = file_problem(named.file);
    if (!reason) continue;
    const bool note = named.file.relative && !named.place.file.empty();
    Problem problem = named.place;
    problem.message =
        fmt::format("{}: {}{}", named.prefix, *reason, note ? " (relative to the spec's folder)" : "");
    reader.add(std::move(problem));
  }
}

// What keys say only together.
void check_disks(SpecReader& reader, const Spec& spec) {
  for (auto& found : disk_problems(spec.disks)) {
    const std::string item = fmt::format("disks[{}]", found.disk);
    const std::string key = found.key.empty() ? item : fmt::format("{}.{}", item, found.key);
    // One that is no list of one.
    const std::string alone = fmt::format("disks.{}", found.key);
    Problem problem = reader.place_of(reader.was_set(alone) ? alone : key);
    problem.message = fmt::format("{}: {}", problem.file.empty() ? "--disk" : key, found.text);
    reader.add(std::move(problem));
  }
}

void check_vsock(SpecReader& reader, const Spec& spec, const std::string& file) {
  if (spec.vsock.cid != VsockSpec{}.cid && spec.vsock.socket.kind == VsockKind::kNone)
    reader.add({file, 0, 0, "vsock: a cid alone makes no device: say where its socket is, socket: auto"});
}

void check_root(SpecReader& reader, const Spec& spec, const std::string& file) {
  if (!spec.image.empty() && !spec.root.empty())
    reader.add({file, 0, 0, "image and root exclude each other: both say what the guest's root is"});
  if (spec.image.empty() && spec.init == InitMode::kImage)
    reader.add({file, 0, 0, "init: image: there is no image: name one"});
  if (spec.image.empty() && spec.storage)
    reader.add({file, 0, 0, "storage: it is for the root of an image; a disk of one's own is one of disks"});
  if (spec.storage.value_or(kStorageMin) < kStorageMin)
    reader.add({file, 0, 0, fmt::format("storage: at least {}", format_size(kStorageMin))});
  if (spec.image.empty() && spec.publish_all)
    reader.add({file, 0, 0, "publish_all: there is no image whose ports it could publish; name them: ports"});
}

void check_channels(SpecReader& reader, const Spec& spec, const std::string& file) {
  const auto add = [&](std::string message) { reader.add({file, 0, 0, std::move(message)}); };
  if (spec.consoles.size() > kConsolesMax)
    add(fmt::format("virtio_consoles: at most {}, got {}", kConsolesMax, spec.consoles.size()));
  if (spec.channels.size() > kChannelsMax)
    add(fmt::format("channels: at most {}, got {}", kChannelsMax, spec.channels.size()));
  std::set<std::string> names;
  std::set<std::string> sockets;
  for (const HvcSpec& console : spec.consoles)
    if (console.to.kind == PortKind::kSocket && !sockets.insert(console.to.path).second)
      add(fmt::format("virtio_consoles: two with the socket {}", console.to.path));
  for (size_t i = 0; i < spec.channels.size(); ++i) {
    const ChannelSpec& channel = spec.channels[i];
    if (channel.name.empty()) add(fmt::format("channels[{}]: name is missing", i));
    if (channel.socket.empty()) add(fmt::format("channels[{}]: socket is missing", i));
    if (!channel.name.empty() && !names.insert(channel.name).second)
      add(fmt::format("channels: two are named {}", channel.name));
    if (!channel.socket.empty() && !sockets.insert(channel.socket).second)
      add(fmt::format("channels[{}]: the socket {} is used already", i, channel.socket));
  }
}

void check_balloon(SpecReader& reader, const Spec& spec, const std::string& file) {
  if (spec.balloon.value_or(0) >= spec.memory)
    reader.add({file, 0, 0, "balloon: the guest cannot give back all of its memory"});
}

void check_shares(SpecReader& reader, Spec& spec) {
  for (auto& found : share_problems(spec.shares)) {
    const std::string item = fmt::format("shares[{}]", found.share);
    const std::string key = found.key.empty() ? item : fmt::format("{}.{}", item, found.key);
    Problem problem = reader.place_of(key);
    problem.message = fmt::format("{}: {}", problem.file.empty() ? "--share" : key, found.text);
    reader.add(std::move(problem));
  }
  for (size_t i = 0; i < spec.shares.size(); ++i) {
    const std::string item = fmt::format("shares[{}]", i);
    if (reader.was_set(item + ".source") || reader.was_set("shares.source")) continue;
    Problem problem = reader.place_of(item);
    problem.message = fmt::format("{}: source is missing", problem.file.empty() ? "--share" : item);
    reader.add(std::move(problem));
  }
  name_shares(spec.shares);
}

}  // namespace

std::string default_name(std::string_view file_name) {
  constexpr size_t kMaxName = 63;
  if (file_name.starts_with('<')) return "snug";
  file_name.remove_prefix(file_name.rfind('/') + 1);
  const size_t dot = file_name.rfind('.');
  if (dot != std::string_view::npos && dot > 0) file_name = file_name.substr(0, dot);
  std::string name;
  for (const char c : file_name) {
    const bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (name.empty() && !alnum) continue;
    name += alnum || c == '_' || c == '.' ? c : '-';
    if (name.size() == kMaxName) break;
  }
  return name.empty() ? "snug" : name;
}

ParseOutcome parse_spec_text(std::string_view yaml, const std::string& file_name,
                             const std::string& base_dir) {
  ParseOutcome outcome;
  SpecReader reader(spec_keys());
  if (yaml.size() > kMaxSpecBytes) {
    reader.add({file_name, 0, 0, fmt::format("larger than {} KiB; is this a spec?", kMaxSpecBytes / 1024)});
  } else {
    reader.read_yaml(yaml, file_name, base_dir, &outcome.spec);
  }
  if (!reader.was_set("name")) outcome.spec.name = default_name(file_name);
  check_shares(reader, outcome.spec);
  outcome.problems = reader.take_problems();
  return outcome;
}

ParseOutcome load_spec(const std::optional<std::string>& spec_path, const FlagValues& flags) {
  ParseOutcome outcome;
  SpecReader reader(spec_keys());
  const std::string shown = spec_path.value_or("");
  SpecFile file;
  if (spec_path) {
    auto read = read_spec_file(*spec_path);
    if (read) {
      file = std::move(*read);
      reader.read_yaml(file.text, file.shown_name, file.base_dir, &outcome.spec);
    } else {
      reader.add({shown.empty() ? "''" : shown, 0, 0, read.error().text()});
    }
  }
  const std::string folder = working_folder();
  reader.read_flags(flags, folder, &outcome.spec);
  if (!reader.was_set("name") && spec_path) outcome.spec.name = default_name(file.shown_name);
  outcome.named = reader.was_set("name") || (spec_path && !file.shown_name.starts_with('<'));
  check_files(reader);
  check_disks(reader, outcome.spec);
  check_vsock(reader, outcome.spec, file.shown_name);
  check_root(reader, outcome.spec, file.shown_name);
  check_channels(reader, outcome.spec, file.shown_name);
  check_balloon(reader, outcome.spec, file.shown_name);
  check_shares(reader, outcome.spec);
  for (auto& problem : network_problems(outcome.spec))
    reader.add({file.shown_name, 0, 0, std::move(problem)});
  for (auto& problem : limit_problems(outcome.spec)) reader.add({file.shown_name, 0, 0, std::move(problem)});
  outcome.problems = reader.take_problems();
  return outcome;
}

std::string format_problem(const Problem& problem) {
  if (problem.file.empty()) return problem.message;
  if (problem.line <= 0) return fmt::format("{}: {}", problem.file, problem.message);
  return fmt::format("{}:{}:{}: {}", problem.file, problem.line, problem.column, problem.message);
}

}  // namespace snug
