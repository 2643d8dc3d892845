#include "vmm/shares/listing.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstddef>

#include "vmm/shares/attributes.h"
#include "vmm/shares/limits.h"

namespace snug {
namespace {

constexpr size_t kNameOffset = offsetof(fuse_dirent, name);

size_t padding(size_t size) { return (8 - size % 8) % 8; }

bool is_dots(std::string_view name) { return name == "." || name == ".."; }

// The numbers of "." and ".." are the folder's own and that of the one above, which for the root is itself.
uint64_t number_of(const Share& share, const Handle& handle, const DirectoryReader::Entry& entry) {
  const bool stays = entry.name == ".." && handle.inode.id() == FUSE_ROOT_ID;
  return share.number(handle.inode->device, stays ? handle.inode->number : entry.number);
}

void put_entry(Reply& reply, const DirectoryReader::Entry& entry, uint64_t number) {
  struct {
    uint64_t number, next;
    uint32_t name_length, type;
  } const head{number, entry.next, static_cast<uint32_t>(entry.name.size()), entry.type};
  static_assert(sizeof head == kNameOffset);
  reply.put(head);
  reply.put_bytes(std::as_bytes(std::span(entry.name)));
  reply.put_zeros(padding(kNameOffset + entry.name.size()));
}

// Without a node: the guest looks it up when it wants to know.
fuse_entry_out unknown(const DirectoryReader::Entry& entry, uint64_t number) {
  fuse_entry_out out{};
  out.attr.ino = number;
  out.attr.mode = uint32_t{entry.type} << 12;
  return out;
}

}  // namespace

Outcome<> list(Share& share, Handle& handle, const fuse_read_in& in, Reply& reply, Listing listing) {
  if (!handle.inode.is_folder()) return refuse(ENOTDIR);
  const bool plus = listing == Listing::kWithAttributes;
  const size_t head = kNameOffset + (plus ? sizeof(fuse_entry_out) : 0);
  uint64_t room = std::min<uint64_t>({in.size, reply.room(), kMaxListing});
  bool any = false;
  const std::lock_guard lock(handle.reader.mutex());
  SNUG_TRY(handle.reader.seek(handle.fd.get(), in.offset));
  for (;; handle.reader.step()) {
    const auto entry = handle.reader.look(handle.fd.get());
    // What has been put is answered; the error comes again.
    if (!entry) return any ? Outcome<>{} : refuse(entry.error());
    if (entry->name.empty()) return {};
    const size_t size = head + entry->name.size();
    if (size + padding(size) > room) return any ? Outcome<>{} : refuse(EINVAL);
    uint64_t number = number_of(share, handle, *entry);
    if (plus) {
      fuse_entry_out out = unknown(*entry, number);
      if (!is_dots(entry->name)) {
        const auto entered = look_up(share, handle.inode, entry->name);
        if (!entered && entered.error() == ENOENT) continue;
        if (entered) out = entered->out;
      }
      reply.put(out);
    }
    put_entry(reply, *entry, number);
    room -= size + padding(size);
    any = true;
  }
}

}  // namespace snug
