#include "boot/prepared.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "boot/byte_stream.h"
#include "boot/elf.h"
#include "vmm/base/checked.h"
#include "vmm/base/mapping.h"

namespace snug::boot {
namespace {

constexpr uint64_t kPage = 4096;
constexpr size_t kExtentsMax = 64;
constexpr size_t kFormatMax = 128;
// "snug" and a number to raise with every change of Header.
constexpr uint64_t kMagic = 0x736e'7567'0000'0002;

// One after the other behind the header, each a whole number of pages.
struct PageExtent {
  uint64_t gpa;
  uint64_t size;
};

struct Header {
  uint64_t magic;
  uint64_t header_size;
  uint32_t protocol;
  uint16_t is_linux;
  uint16_t unpacks_itself;
  uint64_t entry, start, end, initrd_max;
  uint32_t cmdline_max;
  uint32_t format_size;
  std::array<char, kFormatMax> format;
  // Of a bzImage, to be parsed again; size 0 for others.
  uint64_t setup_header_size;
  uint64_t bzimage_size;
  std::array<std::byte, kSetupHeaderMax> setup_header;
  // Behind the extents: so many offsets of 32 bits of each kind.
  std::array<uint64_t, Relocations::kKinds> relocation_counts;
  uint64_t extent_count;
  std::array<PageExtent, kExtentsMax> extents;
};
static_assert(std::is_trivially_copyable_v<Header>);
static_assert(sizeof(Header) <= kPage);

// The pages that hold the kernel's bytes, each once.
std::vector<PageExtent> pages_of(const LoadedKernel& kernel) {
  std::vector<PageExtent> pages;
  for (const LoadedKernel::Extent& extent : kernel.extents) {
    uint64_t first = extent.gpa / kPage * kPage;
    const uint64_t end = (extent.gpa + extent.size + kPage - 1) / kPage * kPage;
    if (!pages.empty()) {
      PageExtent& before = pages.back();
      if (first <= before.gpa + before.size) {
        before.size = std::max(before.size, end - before.gpa);
        continue;
      }
    }
    pages.push_back({first, end - first});
  }
  return pages;
}

Result<void> write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return fail_errno(count < 0 ? errno : EIO, "write");
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return {};
}

Result<void> write_pages(int fd, const PageExtent& pages, const GuestMemory& memory) {
  std::vector<std::byte> buffer(256 * kKiB);
  for (uint64_t done = 0; done < pages.size;) {
    const auto piece = std::span(buffer).first(std::min<uint64_t>(buffer.size(), pages.size - done));
    if (!memory.read(pages.gpa + done, piece)) return fail("outside of guest memory");
    SNUG_TRY(write_all(fd, piece));
    done += piece.size();
  }
  return {};
}

// Extents ascend, hold the entry point and lie in the file and inside the kernel's own range.
Result<void> check_header(const Header& header, uint64_t file_size) {
  constexpr uint64_t kRelocationsMax = 16 * kMiB;
  if (header.magic != kMagic || header.header_size != sizeof(Header))
    return fail("not a prepared kernel of this build");
  if (header.extent_count == 0 || header.extent_count > kExtentsMax || header.format_size > kFormatMax)
    return fail("a damaged prepared kernel");
  if (header.protocol > static_cast<uint32_t>(EntryProtocol::kPvh) ||
      header.setup_header_size > kSetupHeaderMax)
    return fail("a damaged prepared kernel");
  uint64_t position = kPage;
  uint64_t from = header.start / kPage * kPage;
  const uint64_t limit = header.end + kPage;
  for (const PageExtent& extent : std::span(header.extents).first(header.extent_count)) {
    const bool whole = extent.gpa % kPage == 0 && extent.size % kPage == 0 && extent.size > 0;
    if (!whole || extent.gpa < from || !range_within(extent.gpa, extent.size, limit))
      return fail("a damaged prepared kernel");
    if (!range_within(position, extent.size, file_size)) return fail("a prepared kernel cut short");
    from = extent.gpa + extent.size;
    position += extent.size;
  }
  uint64_t relocations = 0;
  for (const uint64_t count : header.relocation_counts) {
    if (count > kRelocationsMax) return fail("a damaged prepared kernel");
    relocations += count;
  }
  if (!range_within(position, relocations * sizeof(uint32_t), file_size))
    return fail("a prepared kernel cut short");
  return {};
}

// The words are used where the file lies, for as long as somebody holds them.
Result<Relocations> map_relocations(int fd, uint64_t position, const Header& header) {
  Relocations relocations;
  std::ranges::copy(header.relocation_counts, relocations.counts.begin());
  auto mapping = std::make_shared<Mapping>(SNUG_TRY(Mapping::create(
      relocations.total() * sizeof(uint32_t), PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, position)));
  relocations.offsets = {mapping, reinterpret_cast<const uint32_t*>(mapping->data())};
  return relocations;
}

}  // namespace

Result<void> write_prepared(int fd, const LoadedKernel& kernel, const GuestMemory& memory) {
  const auto pages = pages_of(kernel);
  if (pages.empty() || pages.size() > kExtentsMax || kernel.format.size() > kFormatMax)
    return fail("a kernel in {} pieces", pages.size());
  std::array<std::byte, kPage> block{};
  Header header{};
  header.magic = kMagic;
  header.header_size = sizeof(Header);
  header.protocol = static_cast<uint32_t>(kernel.protocol);
  header.is_linux = kernel.is_linux ? 1 : 0;
  header.unpacks_itself = kernel.unpacks_itself ? 1 : 0;
  if (const auto& setup = kernel.setup_header) {
    header.setup_header_size = setup->raw_size;
    header.bzimage_size = setup->code_offset + setup->code_size;
    header.setup_header = setup->raw;
  }
  // As if it lay where it was linked to.
  header.entry = kernel.entry - kernel.moved_by;
  header.start = kernel.start - kernel.moved_by;
  header.end = kernel.end - kernel.moved_by;
  header.initrd_max = kernel.initrd_max;
  header.cmdline_max = kernel.cmdline_max;
  header.format_size = static_cast<uint32_t>(kernel.format.size());
  std::ranges::copy(kernel.format, header.format.begin());
  header.extent_count = pages.size();
  for (size_t i = 0; i < pages.size(); ++i)
    header.extents[i] = {pages[i].gpa - kernel.moved_by, pages[i].size};
  if (kernel.relocations) std::ranges::copy(kernel.relocations->counts, header.relocation_counts.begin());
  std::memcpy(block.data(), &header, sizeof header);
  SNUG_TRY(write_all(fd, block));
  for (const PageExtent& extent : pages) SNUG_TRY(write_pages(fd, extent, memory));
  if (kernel.relocations) SNUG_TRY(write_all(fd, std::as_bytes(kernel.relocations->all())));
  return {};
}

Result<LoadedKernel> map_prepared(int fd, const GuestMemory& memory, const Placement& placement) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "fstat");
  Header header;
  if (SNUG_TRY(read_at(fd, 0, std::as_writable_bytes(std::span(&header, 1)))) < sizeof header)
    return fail("a prepared kernel cut short");
  SNUG_TRY(check_header(header, static_cast<uint64_t>(status.st_size)));
  SNUG_TRY(check_kernel_fits(memory, header.start, header.end));

  LoadedKernel kernel;
  kernel.protocol = static_cast<EntryProtocol>(header.protocol);
  kernel.unpacks_itself = header.unpacks_itself != 0;
  kernel.format.assign(header.format.data(), header.format_size);
  kernel.is_linux = header.is_linux != 0;
  if (header.setup_header_size > 0) {
    std::array<std::byte, kBzImageHeadSize> head{};
    std::copy_n(header.setup_header.begin(), header.setup_header_size, head.begin() + kSetupHeaderOffset);
    kernel.setup_header = SNUG_TRY(parse_setup_header(head, header.bzimage_size));
  }
  kernel.initrd_max = header.initrd_max;
  kernel.cmdline_max = header.cmdline_max;
  const uint64_t step =
      kernel.setup_header && !kernel.unpacks_itself ? placement_step(*kernel.setup_header) : 0;
  if (step != 0)
    kernel.moved_by = physical_offset(placement, header.start, header.end,
                                      placement_limit(memory, kernel.initrd_max), step);
  kernel.entry = header.entry + kernel.moved_by;
  kernel.start = header.start + kernel.moved_by;
  kernel.end = header.end + kernel.moved_by;
  uint64_t position = kPage;
  for (const PageExtent& extent : std::span(header.extents).first(header.extent_count)) {
    kernel.extents.push_back({extent.gpa + kernel.moved_by, extent.size});
    SNUG_TRY(memory.map_file(fd, position, extent.gpa + kernel.moved_by, extent.size));
    position += extent.size;
  }
  if (placement.randomise && header.relocation_counts != decltype(header.relocation_counts){})
    kernel.relocations = SNUG_TRY(map_relocations(fd, position, header));
  return kernel;
}

}  // namespace snug::boot
