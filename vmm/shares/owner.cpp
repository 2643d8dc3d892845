#include "vmm/shares/owner.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <charconv>

namespace snug {
namespace {

constexpr uint32_t kPrivilegeBits = S_ISUID | S_ISGID;
// File systems date changes by ticks of the clock: two of one tick look like one.
constexpr uint64_t kTick = 20'000'000;
constexpr size_t kLongestText = 64;

bool take_number(std::string_view& text, uint32_t& number, int base, bool last) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc() || end == text.data()) return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  if (text.empty()) return last;
  if (text.front() != ':') return false;
  text.remove_prefix(1);
  return !text.empty();
}

}  // namespace

uint32_t Look::host_mode() const {
  // Nobody uses it there, and its user has to read who it is.
  if (is_device()) return 0600;
  const uint32_t bits = mode & (S_ISDIR(mode) ? 03777u : 01777u);
  return group_rights ? bits & ~(~*group_rights << 3 & uint32_t{S_IRWXG}) : bits;
}

std::optional<Override> Override::parse(std::string_view text) {
  Override found;
  if (!take_number(text, found.uid, 10, false) || !take_number(text, found.gid, 10, false) ||
      !take_number(text, found.mode, 8, true) || found.mode > 0177777)
    return std::nullopt;
  const bool is_device = S_ISCHR(found.mode) || S_ISBLK(found.mode);
  if (!is_device && text.empty()) return found;
  if (!is_device) {
    if (text.size() != 2 || text[0] != 'g' || text[1] < '0' || text[1] > '7') return std::nullopt;
    found.group_rights = static_cast<uint32_t>(text[1] - '0');
    return found;
  }
  uint32_t major = 0;
  uint32_t minor = 0;
  if (!take_number(text, major, 10, false) || !take_number(text, minor, 10, true) || !text.empty() ||
      major > 0xfff || minor > 0xfffff)
    return std::nullopt;
  found.device = device_number(major, minor);
  return found;
}

std::string Override::text() const {
  std::string text = fmt::format("{}:{}:{:o}", uid, gid, mode);
  if (!S_ISCHR(mode) && !S_ISBLK(mode))
    return group_rights ? text + fmt::format(":g{}", *group_rights) : text;
  return text + fmt::format(":{}:{}", device >> 8 & 0xfff, (device & 0xff) | (device >> 12 & 0xfff00));
}

Owners::Owners(const HostFiles& host, const ShareOptions& options)
    : host_(host),
      real_ids_(options.real_ids && !options.uid && !options.gid),
      user_(::geteuid()),
      group_(::getegid()),
      guest_uid_(options.uid.value_or(0)),
      guest_gid_(options.gid.value_or(0)),
      foreign_uid_(options.foreign_uid),
      foreign_gid_(options.foreign_gid),
      moment_(moment_of(options)) {}

uint64_t Owners::now() {
  timespec time{};
  ::clock_gettime(CLOCK_REALTIME_COARSE, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

bool Owners::is_ours(const FileStatus& status, uint64_t moment) const {
  const uint64_t born = birth_of(status);
  return status.stx_uid == user_ && (born == 0 || born >= moment);
}

Look Owners::plain(const FileStatus& status) const {
  Look look{.mode = status.stx_mode, .uid = status.stx_uid, .gid = status.stx_gid};
  if (!real_ids_) {
    look.uid = status.stx_uid == user_ ? guest_uid_ : foreign_uid_;
    look.gid = status.stx_gid == group_ ? guest_gid_ : foreign_gid_;
  }
  if (look.is_device()) look.device = device_number(status.stx_rdev_major, status.stx_rdev_minor);
  return look;
}

// Of others' files a server of root's believes no more than what they could do to them themselves.
bool Owners::may_override(const FileStatus& status) const {
  return (S_ISREG(status.stx_mode) || S_ISDIR(status.stx_mode)) && (real_ids_ || status.stx_uid == user_);
}

void Owners::note_new(Inode& inode) const { inode.plain.found(inode.plain.begin(), Recent::now() + moment_); }

Look Owners::with_override(Look look, const FileStatus& status, const Override& override) const {
  const uint32_t type = override.mode & S_IFMT;
  const bool is_device = S_ISCHR(override.mode) || S_ISBLK(override.mode);
  if (is_device) {
    if (!S_ISREG(status.stx_mode) || status.stx_size != 0 || status.stx_uid != user_) return look;
    look.mode = type | (override.mode & 07777);
    look.device = override.device;
  } else {
    if (type != (look.mode & S_IFMT)) return look;
    // A folder's setgid hands a group down, of which its owner may not be.
    const bool hands_down = S_ISDIR(status.stx_mode) && status.stx_uid != user_;
    look.mode |= override.mode & (hands_down ? uint32_t{S_ISUID} : kPrivilegeBits);
    if (!real_ids_ && override.group_rights) {
      look.group_rights = override.group_rights;
      look.mode = (look.mode & ~uint32_t{S_IRWXG}) | (override.mode & S_IRWXG);
    }
  }
  if (!real_ids_ || is_device) {
    look.uid = override.uid;
    look.gid = override.gid;
  }
  look.overridden = true;
  return look;
}

Outcome<Look> Owners::look(const InodeRef& inode, const FileStatus& status) const {
  Look look = plain(status);
  if (!may_override(status)) return look;
  const uint64_t changed = nanoseconds(status.stx_ctime);
  if (inode->plain_as_of.load(std::memory_order_relaxed) == changed) return look;
  const uint64_t device = device_of(status);
  const uint64_t moment = Recent::now();
  if (bare_device_.load(std::memory_order_relaxed) == device || inode->plain.holds(moment)) return look;
  const uint64_t begun = inode->plain.begin();
  std::array<char, kLongestText> text;
  const auto length = host_.xattr(inode.fd(), kOverrideName, text);
  const int error = length ? 0 : length.error();
  if (length) {
    const auto override = Override::parse({text.data(), *length});
    if (override) look = with_override(look, status, *override);
  } else if (error == EMFILE || error == ENFILE || error == ENOMEM) {
    // To be out of descriptors is no answer; one that may not be read is plain.
    return refuse(error);
  } else if (error == ENOTSUP) {
    bare_device_.store(device, std::memory_order_relaxed);
  } else if (error == ENODATA) {
    inode->plain.found(begun, moment + moment_);
    if (changed + kTick < now()) inode->plain_as_of.store(changed, std::memory_order_relaxed);
  }
  inode->is_device.store(look.is_device(), std::memory_order_relaxed);
  return look;
}

// Null: there shall be none. The descriptor is of use for attributes whatever it was opened for.
Outcome<> Owners::set_override(int fd, int opened, const Override* override) const {
  UniqueFd own;
  if (opened < 0) {
    own = SNUG_TRY(host_.reopen(fd, O_RDONLY));
    opened = own.get();
  }
  if (override == nullptr) {
    if (::fremovexattr(opened, kOverrideName) != 0 && errno != ENODATA && errno != ENOTSUP)
      return refuse(errno);
    return {};
  }
  const std::string text = override->text();
  return outcome_of(::fsetxattr(opened, kOverrideName, text.data(), text.size(), 0));
}

Outcome<> Owners::set_mode(int fd, uint32_t mode) const {
  return outcome_of(::fchmodat(host_.proc_self_fd(), FdName(fd).text(), mode & ~uint32_t{S_ISUID}, 0));
}

// A user without CAP_DAC_OVERRIDE needs the right to write for that, and gets it for the moment; `status` has
// the mode that the file is left with.
Outcome<> Owners::keep_override(int fd, int opened, FileStatus& status, const Override* override) const {
  auto kept = set_override(fd, opened, override);
  if (!kept && kept.error() == EACCES && status.stx_uid == user_) {
    const uint32_t before = status.stx_mode & 07777;
    SNUG_TRY(set_mode(fd, before | S_IRUSR | S_IWUSR));
    status.stx_mode |= S_IRUSR | S_IWUSR;
    kept = set_override(fd, opened, override);
    if (!kept) (void)set_mode(fd, before);
  }
  if (kept || (kept.error() != ENOTSUP && kept.error() != EACCES)) return kept;
  return refuse(EPERM);
}

// Root's part: files belong on the host to whom they belong to in the guest.
Outcome<> Owners::give_away(int fd, FileStatus& status, const Look& wanted) const {
  if (status.stx_uid == wanted.uid && status.stx_gid == wanted.gid) return {};
  SNUG_TRY(outcome_of(::fchownat(fd, "", wanted.uid, wanted.gid, AT_EMPTY_PATH)));
  status = SNUG_TRY(host_.status(fd));
  return {};
}

Outcome<> Owners::change(const InodeRef& inode, int opened, const FileStatus& before, const Look& now,
                         const Look& wanted) const {
  FileStatus status = before;
  const bool is_folder = S_ISDIR(status.stx_mode);
  const bool is_device = wanted.is_device() && S_ISREG(status.stx_mode);
  const uint32_t mode = is_device || !wanted.is_device() ? wanted.host_mode() : wanted.mode & 01777;
  if (real_ids_ && !is_device) SNUG_TRY(give_away(inode.fd(), status, wanted));
  Look would_be = plain(status);
  would_be.mode = (status.stx_mode & S_IFMT) | mode;
  bool needed = is_device || would_be.uid != wanted.uid || would_be.gid != wanted.gid ||
                would_be.mode != wanted.mode || wanted.group_rights;
  const Override override{wanted.uid, wanted.gid, wanted.mode, wanted.device, wanted.group_rights};
  if (needed && ((!is_folder && !S_ISREG(status.stx_mode)) || !may_override(status))) return refuse(EPERM);
  if (needed || now.overridden) {
    const auto kept = keep_override(inode.fd(), opened, status, needed ? &override : nullptr);
    inode->plain.ends();
    if (!kept) return kept;
  }
  if ((status.stx_mode & 07777) == mode || S_ISLNK(status.stx_mode)) return {};
  SNUG_TRY(set_mode(inode.fd(), mode));
  if (!is_folder || (mode & S_ISGID) == 0 || needed) return {};
  // The host leaves that bit out where its user is not of the folder's group.
  status = SNUG_TRY(host_.status(inode.fd()));
  if ((status.stx_mode & S_ISGID) != 0) return {};
  const auto kept = keep_override(inode.fd(), opened, status, &override);
  inode->plain.ends();
  return kept;
}

}  // namespace snug
