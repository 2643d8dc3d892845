#include "vmm/shares/posix_acl.h"

#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>

#include <array>
#include <cstring>

#include "vmm/base/endian.h"

namespace snug {
namespace {

constexpr size_t kHead = sizeof(posix_acl_xattr_header);
constexpr size_t kEntry = sizeof(posix_acl_xattr_entry);
constexpr uint32_t kNobody = ~uint32_t{0};
constexpr uint16_t kRights = ACL_READ | ACL_WRITE | ACL_EXECUTE;

// Where an entry stands among the others, and whether there may be several.
struct Place {
  uint16_t tag;
  uint8_t order;
  bool several;
};
constexpr std::array kPlaces = {Place{ACL_USER_OBJ, 0, false},  Place{ACL_USER, 1, true},
                                Place{ACL_GROUP_OBJ, 2, false}, Place{ACL_GROUP, 3, true},
                                Place{ACL_MASK, 4, false},      Place{ACL_OTHER, 5, false}};

const Place* place_of(uint16_t tag) {
  for (const Place& place : kPlaces)
    if (place.tag == tag) return &place;
  return nullptr;
}

}  // namespace

Outcome<PosixAcl> PosixAcl::parse(std::span<const std::byte> bytes) {
  if (bytes.size() < kHead) return refuse(EINVAL);
  if (load_le(bytes.first(kHead)) != POSIX_ACL_XATTR_VERSION) return refuse(EOPNOTSUPP);
  if (bytes.size() > kMaxBytes) return refuse(E2BIG);
  bytes = bytes.subspan(kHead);
  if (bytes.size() % kEntry != 0) return refuse(EINVAL);
  PosixAcl acl;
  const Place* last = nullptr;
  for (; !bytes.empty(); bytes = bytes.subspan(kEntry)) {
    Entry entry{static_cast<uint16_t>(load_le(bytes.first(2))),
                static_cast<uint16_t>(load_le(bytes.subspan(2, 2))),
                static_cast<uint32_t>(load_le(bytes.subspan(4, 4)))};
    const Place* const place = place_of(entry.tag);
    if (place == nullptr || (entry.rights & ~kRights) != 0) return refuse(EINVAL);
    if (last != nullptr && (place->order < last->order || (place == last && !place->several)))
      return refuse(EINVAL);
    if (!place->several) entry.id = kNobody;
    if (place->several && entry.id == kNobody) return refuse(EINVAL);
    acl.entries_.push_back(entry);
    last = place;
  }
  for (const int needed : {ACL_USER_OBJ, ACL_GROUP_OBJ, ACL_OTHER})
    if (acl.find(static_cast<uint16_t>(needed)) == nullptr) return refuse(EINVAL);
  const bool names = acl.find(ACL_USER) != nullptr || acl.find(ACL_GROUP) != nullptr;
  if (names && acl.find(ACL_MASK) == nullptr) return refuse(EINVAL);
  return acl;
}

std::string PosixAcl::bytes() const {
  std::string all(kHead + entries_.size() * kEntry, '\0');
  std::span<std::byte> rest = std::as_writable_bytes(std::span(all));
  store_le(rest.first(kHead), POSIX_ACL_XATTR_VERSION);
  rest = rest.subspan(kHead);
  for (const Entry& entry : entries_) {
    store_le(rest.first(2), entry.tag);
    store_le(rest.subspan(2, 2), entry.rights);
    store_le(rest.subspan(4, 4), entry.id);
    rest = rest.subspan(kEntry);
  }
  return all;
}

const PosixAcl::Entry* PosixAcl::find(uint16_t tag) const {
  for (const Entry& entry : entries_)
    if (entry.tag == tag) return &entry;
  return nullptr;
}

uint32_t PosixAcl::group_rights() const { return find(ACL_GROUP_OBJ)->rights; }

uint32_t PosixAcl::mode() const {
  const Entry* const mask = find(ACL_MASK);
  const uint32_t group = mask != nullptr ? mask->rights : group_rights();
  return uint32_t{find(ACL_USER_OBJ)->rights} << 6 | group << 3 | find(ACL_OTHER)->rights;
}

bool PosixAcl::is_more_than_mode() const { return entries_.size() > 3; }

void PosixAcl::set_mode(uint32_t mode) {
  Entry* const mask = find(ACL_MASK);
  (mask != nullptr ? mask : find(ACL_GROUP_OBJ))->rights = mode >> 3 & kRights;
  find(ACL_USER_OBJ)->rights = mode >> 6 & kRights;
  find(ACL_OTHER)->rights = mode & kRights;
}

void PosixAcl::inherit(uint32_t& mode) {
  set_mode(mode & this->mode());
  mode = (mode & ~uint32_t{0777}) | this->mode();
}

}  // namespace snug
