#include "vmm/shares/listing.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <iterator>

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

// The entries of an open folder.
struct HostEntries {
  DirectoryReader& reader;
  int fd;

  auto look() { return reader.look(fd); }
  void step() { reader.step(); }
};

// Those of the folder around a shared file.
struct MadeUpEntries {
  const Share& share;
  uint64_t offset;

  Outcome<DirectoryReader::Entry> look() const {
    const std::string_view names[] = {".", "..", share.options.file_name};
    if (offset >= std::size(names)) return DirectoryReader::Entry{};
    const uint64_t number = share.root_status.stx_ino;
    return DirectoryReader::Entry{names[offset], offset < 2 ? number : ~number, offset + 1,
                                  static_cast<uint8_t>(offset < 2 ? DT_DIR : DT_REG)};
  }
  void step() { ++offset; }
};

template <class Entries>
Outcome<> list_entries(Share& share, const Handle& handle, Entries entries, uint64_t room, Reply& reply,
                       Listing listing) {
  const bool plus = listing == Listing::kWithAttributes;
  const size_t head = kNameOffset + (plus ? sizeof(fuse_entry_out) : 0);
  bool any = false;
  for (;; entries.step()) {
    auto entry = entries.look();
    // What has been put is answered; the error comes again.
    if (!entry) return any ? Outcome<>{} : refuse(entry.error());
    if (entry->name.empty()) return {};
    const size_t size = head + entry->name.size();
    if (size + padding(size) > room) return any ? Outcome<>{} : refuse(EINVAL);
    const uint64_t number = number_of(share, handle, *entry);
    if (plus) {
      fuse_entry_out out = unknown(*entry, number);
      if (!is_dots(entry->name)) {
        const auto entered = look_up(share, handle.inode, entry->name);
        if (!entered && entered.error() == ENOENT) continue;
        if (entered) {
          out = entered->out;
          // A device node is a file on the host.
          entry->type = static_cast<uint8_t>(IFTODT(out.attr.mode));
        }
      }
      reply.put(out);
    }
    put_entry(reply, *entry, number);
    room -= size + padding(size);
    any = true;
  }
}

}  // namespace

Outcome<> list(Share& share, Handle& handle, const fuse_read_in& in, Reply& reply, Listing listing) {
  if (!handle.inode.is_folder()) return refuse(ENOTDIR);
  const uint64_t room = std::min<uint64_t>({in.size, reply.room(), kMaxListing});
  if (share.is_made_up(handle.inode))
    return list_entries(share, handle, MadeUpEntries{share, in.offset}, room, reply, listing);
  const std::lock_guard lock(handle.reader.mutex());
  SNUG_TRY(handle.reader.seek(handle.fd.get(), in.offset));
  return list_entries(share, handle, HostEntries{handle.reader, handle.fd.get()}, room, reply, listing);
}

}  // namespace snug
