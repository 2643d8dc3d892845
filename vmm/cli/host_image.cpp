#include "vmm/cli/host_image.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <span>

#include "boot/payload.h"
#include "vmm/base/cache_folder.h"
#include "vmm/base/unique_fd.h"

extern "C" const char snug_guest_agent[];
extern "C" const char snug_guest_agent_end[];

namespace snug::cli {
namespace {

namespace fs = std::filesystem;

// What each device needs, by its PCI id; "any" is for every machine. The first program loads them by these
// lists.
struct Driver {
  std::string_view id;
  std::string_view module;
  bool needed;
};
constexpr std::array kDrivers{
    Driver{"any", "button", false},
    Driver{"any", "evdev", false},
    Driver{"any", "af_packet", false},
    Driver{"0x1041", "virtio_pci", true},
    Driver{"0x1041", "virtio_net", false},
    Driver{"0x1042", "virtio_pci", true},
    Driver{"0x1042", "virtio_blk", false},
    Driver{"0x1043", "virtio_pci", true},
    Driver{"0x1043", "virtio_console", false},
    Driver{"0x1044", "virtio_pci", true},
    Driver{"0x1044", "virtio_rng", false},
    Driver{"0x1045", "virtio_pci", true},
    Driver{"0x1045", "virtio_balloon", false},
    Driver{"0x1053", "virtio_pci", true},
    Driver{"0x1053", "vmw_vsock_virtio_transport", true},
    Driver{"0x105a", "virtio_pci", true},
    Driver{"0x105a", "virtiofs", true},
    Driver{"0x105a", "overlay", true},
    Driver{"0x105b", "virtio_pci", true},
    Driver{"0x105b", "virtio_pmem", false},
    Driver{"0x105b", "nd_pmem", false},
    Driver{"root", "erofs", false},
    Driver{"root", "overlay", true},
    Driver{"storage", "ext4", false},
};

constexpr uint64_t kLongest = 64 << 20;  // of a module

Result<std::string> read_whole(const fs::path& path) {
  const auto file = SNUG_TRY(open_file(path.string(), O_RDONLY));
  std::string text;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "read {}", path.string());
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<size_t>(count));
    if (text.size() > kLongest) return fail("{}: too large", path.string());
  }
}

class StringSource final : public boot::ByteSource {
 public:
  explicit StringSource(std::string_view bytes) : left_(bytes) {}
  Result<size_t> read(std::span<std::byte> out) override {
    const size_t count = std::min(out.size(), left_.size());
    std::memcpy(out.data(), left_.data(), count);
    left_.remove_prefix(count);
    return count;
  }
  uint64_t left() const override { return left_.size(); }

 private:
  std::string_view left_;
};

class StringSink final : public boot::ByteSink {
 public:
  Result<void> write(std::span<const std::byte> bytes) override {
    if (text.size() + bytes.size() > kLongest) return fail("too large");
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  }
  std::string text;
};

// Modules are packed on some distributions. How long one is nobody says: it is unpacked once to know, and
// once more to know that it is whole.
Result<std::string> read_module(const fs::path& path) {
  std::string bytes = SNUG_TRY(read_whole(path));
  std::array<std::byte, boot::kPayloadMagicSize> head{};
  std::memcpy(head.data(), bytes.data(), std::min(bytes.size(), head.size()));
  const auto format = boot::identify_payload(head);
  if (!format || !boot::can_unpack(*format)) return fail("{}: neither a module nor packed", path.string());
  if (*format == boot::PayloadFormat::kElf) return bytes;
  StringSink sink;
  StringSource source(bytes);
  (void)boot::unpack(*format, source, sink, kLongest);
  StringSink again;
  StringSource from_start(bytes);
  SNUG_TRY(with_context(boot::unpack(*format, from_start, again, sink.text.size()), path.string()));
  return std::move(again.text);
}

// "kernel/drivers/virtio/virtio_pci.ko.xz": "virtio_pci"
std::string name_of(std::string_view path) {
  path.remove_prefix(path.rfind('/') + 1);
  std::string name(path.substr(0, path.find(".ko")));
  std::ranges::replace(name, '-', '_');
  return name;
}

template <class Each>
void for_each_part(std::string_view text, char end, const Each& each) {
  while (!text.empty()) {
    const size_t size = std::min(text.find(end), text.size());
    if (size > 0) each(text.substr(0, size));
    text.remove_prefix(std::min(size + 1, text.size()));
  }
}

std::string_view agent() {
  return {snug_guest_agent, static_cast<size_t>(snug_guest_agent_end - snug_guest_agent)};
}

void add_first_program(InitrdArchive& archive) {
  archive.add_folder("dev");
  archive.add_device("dev/console", 5, 1);
  archive.add_file("init", agent(), 0755);
}

Result<std::string> make_initrd(const fs::path& modules) {
  const std::string dep = SNUG_TRY(read_whole(modules / "modules.dep"));
  const std::string builtin = SNUG_TRY(read_whole(modules / "modules.builtin"));
  InitrdArchive archive;
  add_first_program(archive);
  archive.add_folder("modules");
  std::map<std::string_view, std::vector<std::string>> lists;
  std::set<std::string> added;
  for (const Driver& driver : kDrivers) {
    const auto files = modules_of(driver.module, dep, builtin);
    if (!files && driver.needed) return tl::unexpected(files.error());
    if (!files) continue;
    auto& list = lists[driver.id];
    for (const std::string& file : *files) {
      const std::string name = name_of(file);
      if (std::ranges::find(list, name) == list.end()) list.push_back(name);
      if (added.insert(name).second)
        archive.add_file("modules/" + name + ".ko", SNUG_TRY(read_module(modules / file)), 0644);
    }
  }
  for (const auto& [id, names] : lists) {
    std::string text;
    for (const std::string& name : names) text += name + "\n";
    archive.add_file(fmt::format("modules/{}.list", id), text, 0644);
  }
  return archive.finish();
}

// Of all that an initrd is made of (FNV-1a).
uint64_t key_of(const fs::path& modules) {
  uint64_t hash = 0xcbf29ce484222325;
  const auto take = [&hash](std::string_view bytes) {
    for (const char c : bytes) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  };
  take(agent());
  struct stat status {};
  if (!modules.empty() && ::stat((modules / "modules.dep").c_str(), &status) == 0)
    take(fmt::format("{} {} {}", status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec));
  return hash;
}

Result<void> write_new(const fs::path& path, std::string_view bytes) {
  const fs::path half = fmt::format("{}.{}", path.string(), ::getpid());
  auto written = [&]() -> Result<void> {
    const auto file = SNUG_TRY(open_file(half.string(), O_WRONLY | O_CREAT | O_TRUNC, 0644));
    while (!bytes.empty()) {
      const ssize_t count = ::write(file.get(), bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return fail_errno(errno, "write {}", half.string());
      bytes.remove_prefix(static_cast<size_t>(count));
    }
    if (::rename(half.c_str(), path.c_str()) != 0) return fail_errno(errno, "rename {}", half.string());
    return {};
  }();
  if (!written) ::unlink(half.c_str());
  return written;
}

// The initrd of that name in a folder of its own, made when it is not there; those of kernels and programs
// that were replaced go.
Result<fs::path> keep(const fs::path& folder, const std::string& name,
                      const std::function<Result<std::string>()>& make) {
  const fs::path path = folder / (name + ".initrd");
  std::error_code error;
  if (fs::is_regular_file(path, error)) return path;
  const std::string bytes = SNUG_TRY(make());
  fs::create_directories(folder, error);
  if (error) return fail("{}: {}", folder.string(), error.message());
  for (const auto& entry : fs::directory_iterator(folder, error)) fs::remove(entry.path(), error);
  SNUG_TRY(write_new(path, bytes));
  return path;
}

Result<fs::path> kernel_of(const HostKernels& host) {
  const std::array candidates{host.boot / ("vmlinuz-" + host.release),
                              host.modules / host.release / "vmlinuz",
                              host.boot / ("kernel-" + host.release)};
  for (const fs::path& path : candidates) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) continue;
    if (::access(path.c_str(), R_OK) == 0) return path;
    return fail_with_hint(fmt::format("{}: {}", path.string(), errno_text(errno)),
                          fmt::format("let users read it: sudo chmod +r {}", path.string()));
  }
  return fail("there is no {}", candidates.front().string());
}

}  // namespace

HostKernels HostKernels::here() {
  HostKernels host;
  utsname system{};
  ::uname(&system);
  host.release = system.release;
  return host;
}

Result<GuestImage> host_image(const HostKernels& host) {
  const fs::path kernel = SNUG_TRY(kernel_of(host));
  const fs::path modules = host.modules / host.release;
  const std::string cache = cache_folder();
  if (cache.empty()) return fail("neither HOME nor XDG_CACHE_HOME is set");
  const fs::path initrd =
      SNUG_TRY(keep(fs::path(cache) / "host", fmt::format("{}-{:016x}", host.release, key_of(modules)),
                    [&] { return make_initrd(modules); }));
  return GuestImage{"host", initrd.parent_path(), kernel.string(), {initrd.string()}};
}

Result<std::string> agent_initrd() {
  const std::string cache = cache_folder();
  if (cache.empty()) return fail("neither HOME nor XDG_CACHE_HOME is set");
  const fs::path initrd = SNUG_TRY(
      keep(fs::path(cache) / "agent", fmt::format("{:016x}", key_of({})), []() -> Result<std::string> {
        InitrdArchive archive;
        add_first_program(archive);
        return archive.finish();
      }));
  return initrd.string();
}

Result<std::vector<std::string>> modules_of(std::string_view name, std::string_view dep,
                                            std::string_view builtin) {
  std::optional<std::vector<std::string>> files;
  for_each_part(dep, '\n', [&](std::string_view line) {
    const size_t colon = line.find(':');
    if (files || colon == std::string_view::npos || name_of(line.substr(0, colon)) != name) return;
    files.emplace();
    for_each_part(line.substr(colon + 1), ' ', [&](std::string_view needed) { files->emplace_back(needed); });
    std::ranges::reverse(*files);
    files->emplace_back(line.substr(0, colon));
  });
  if (files) return *files;
  bool is_builtin = false;
  for_each_part(builtin, '\n', [&](std::string_view line) { is_builtin |= name_of(line) == name; });
  if (is_builtin) return std::vector<std::string>{};
  return fail("this host's kernel has no driver {}", name);
}

InitrdArchive::InitrdArchive() = default;

void InitrdArchive::add_folder(std::string_view name) { add(name, S_IFDIR | 0755, {}, 0, 0); }

void InitrdArchive::add_file(std::string_view name, std::string_view content, uint32_t mode) {
  add(name, S_IFREG | mode, content, 0, 0);
}

void InitrdArchive::add_device(std::string_view name, uint32_t major, uint32_t minor) {
  add(name, S_IFCHR | 0600, {}, major, minor);
}

std::string InitrdArchive::finish() {
  add("TRAILER!!!", 0, {}, 0, 0);
  return std::move(bytes_);
}

// Everything is padded to 4 bytes: header and name together, and the content.
void InitrdArchive::add(std::string_view name, uint32_t mode, std::string_view content, uint32_t major,
                        uint32_t minor) {
  const auto pad = [this] { bytes_.resize((bytes_.size() + 3) / 4 * 4); };
  const std::array<uint32_t, 13> fields{++number_,
                                        mode,
                                        0,
                                        0,
                                        1,
                                        0,
                                        static_cast<uint32_t>(content.size()),
                                        0,
                                        0,
                                        major,
                                        minor,
                                        static_cast<uint32_t>(name.size() + 1),
                                        0};
  bytes_ += "070701";
  for (const uint32_t field : fields) bytes_ += fmt::format("{:08X}", field);
  bytes_ += name;
  bytes_ += '\0';
  pad();
  bytes_ += content;
  pad();
}

}  // namespace snug::cli
