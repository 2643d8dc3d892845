#include "vmm/core/lost_pages.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>

namespace snug {
namespace {

// Where a signal handler can reach them. `start` is set last and cleared first.
struct Place {
  std::atomic<bool> taken = false;
  std::atomic<uintptr_t> start = 0;
  std::atomic<uintptr_t> end = 0;
  std::array<char, 512> name{};
};
// Those of a machine, and of the next one while it is built.
std::array<Place, 64> places;

volatile sig_atomic_t words_fd = STDERR_FILENO;

void say(const char* text) { (void)!::write(words_fd, text, std::strlen(text)); }

void on_bus_error(int, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  const Place* lost = nullptr;
  for (const Place& place : places) {
    const uintptr_t start = place.start;
    if (start != 0 && address >= start && address < place.end) lost = &place;
  }
  // In one piece: what others write meanwhile does not come between.
  if (lost == nullptr) {
    say("snug: error: the monitor got a bus error: ended\n");
  } else {
    std::array<char, 768> line{};
    char* at = line.data();
    for (const char* part : {"snug: error: ", static_cast<const char*>(lost->name.data()),
                             ": a page that the guest has as memory is gone: the file has become shorter, or "
                             "its storage fails: ended\n"})
      for (; *part != 0; ++part) *at++ = *part;
    say(line.data());
  }
  ::_exit(128 + SIGBUS);
}

}  // namespace

Result<std::unique_ptr<LostPages>> LostPages::watch(std::span<const std::byte> pages,
                                                    const std::string& name) {
  for (size_t i = 0; i < places.size(); ++i) {
    Place& place = places[i];
    if (place.taken.exchange(true)) continue;
    const size_t length = std::min(name.size(), place.name.size() - 1);
    std::copy_n(name.data(), length, place.name.data());
    place.name[length] = 0;
    place.end = reinterpret_cast<uintptr_t>(pages.data()) + pages.size();
    place.start = reinterpret_cast<uintptr_t>(pages.data());
    return std::unique_ptr<LostPages>(new LostPages(i));
  }
  return fail("too many files are memory of guests");
}

LostPages::~LostPages() {
  places[place_].start = 0;
  places[place_].taken = false;
}

Result<void> watch_lost_pages(int fd) {
  words_fd = fd;
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  ::sigfillset(&action.sa_mask);
  // The jail's: what it does not let through here has to be said, too.
  ::sigdelset(&action.sa_mask, SIGSYS);
  if (::sigaction(SIGBUS, &action, nullptr) != 0) return fail_errno(errno, "sigaction");
  return {};
}

}  // namespace snug
