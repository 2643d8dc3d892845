// What the machine's process and its warden say to each other, over two pairs of SOCK_SEQPACKET sockets: a
// call and its answer on one, news of the warden on the other. One packet is one message: a head and a text.
//
// The warden believes nothing of what it reads: a head that is cut short, a kind that it does not know or an
// index that there is not ends the machine, and so does an answer that there is no room for. It takes no
// descriptors. All numbers are the machine's byte order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug::warden {

constexpr size_t kTextMax = 32 << 10;  // bytes behind a head

enum class CallKind : uint32_t {
  // What is asked for. The answer carries a descriptor, or why there is none.
  kConnectVsock = 1,  // `argument`: the port. A stream to the unix socket of that port
  kStartNetwork,      // `argument`: the interface. passt is at work; its socket
  kNextLog,           // `argument`: a LogKind. An empty file in the place of the one that is full
  kBeginKernel,       // an empty file for the prepared kernel. Before kSealKernels
  kKeepKernel,        // that file is whole: kept from now on, and open for reading. Before kSealKernels
  // What is told. The answer is empty, but for its value.
  kSealKernels,    // the guest is about to run: no kernel is kept from now on
  kStopNetworks,   // every passt
  kGiveUpNetwork,  // `argument`: the interface; what its passt sends makes no sense
  kStarted,        // the guest runs. Value: the warden's CPU time so far, in nanoseconds
  kEnding,  // the guest was asked to power off. `argument`: milliseconds that it has; from kLongest: no limit
  kSuspended,     // the terminal is as it was: both processes can be stopped
  kEnded,         // `argument`: the exit status. Text: the message
  kFailed,        // set-up failed. Text: message, NUL, hint
  kKeepTemplate,  // its files are whole. Once at most, before anything was asked of the guest
  kKeepTouched,   // of the one that was found. Text: pages (vmm/core/touched_pages.h). Once at most
  kDropTemplate,  // it is not to be; or nothing can begin with the one that was found
  kKeptTemplate,  // `argument`: a TemplateFile, the state first. Of the template that there is now
  // Another process is to take the machine's place (live_update.h).
  kBeginUpdate,   // `argument`: 1: RAM is the file that this process has been given. Text: why not
  kUpdateFile,    // `argument`: an UpdateFile, for that process
  kLaunchUpdate,  // they hold what they can while the guest runs. kUpdateReady or kUpdateFailed follows
  kHandOver,      // the guest stands still, and all is in them. Answered if it is to go on here: why
  kEndUpdate,     // it is not to be
  kForgetRam,     // the file that RAM has been in is nobody's any more
  // By that process.
  kTakeState,  // it is ready. Answered when all is in its files
  kTakeOver,   // the guest is about to run there, and nowhere else. In place of kStarted, and answered so
};
constexpr uint64_t kLongest = uint64_t{1} << 40;  // 34 years: any unit of time can count them
constexpr uint64_t kForever = ~uint64_t{0};

enum class LogKind : uint32_t { kConsole, kOutput };

// State and RAM as in a snapshot, RAM as GuestMemory::attach() takes it; the last is what the host's ends
// hold.
enum class UpdateFile : uint32_t { kState, kMemory, kEnds };

enum class TemplateFile : uint32_t { kState, kMemory };

struct Call {
  uint32_t kind = 0;
  uint32_t id = 0;
  uint64_t argument = 0;
};

struct Answer {
  uint32_t id = 0;
  int32_t error = 0;   // 0, or an errno
  uint64_t value = 0;  // of kStarted
};

enum class NewsKind : uint32_t {
  kSignal = 1,        // `number`: which. `flag`: the terminal is ours
  kNetworkConnected,  // `number`: the interface. With the socket of a passt that was started anew
  kNetworkLost,       // `number`: the interface
  kUpdateReady,       // whoever takes the machine's place waits for it
  kUpdateFailed,      // there is none. Text: why
};

struct News {
  uint32_t kind = 0;
  uint32_t number = 0;
  uint32_t flag = 0;
};

// A packet as it came.
template <class Head>
struct Packet {
  Head head;
  std::string text;
  UniqueFd descriptor;
};

// Sends one packet, whole or not at all. Errors: an errno (EAGAIN: the other side does not read).
int send_packet(int socket, const void* head, size_t head_size, std::string_view text, int descriptor);

// Receives one packet. 0, or an errno: EAGAIN: none yet; EPIPE: the other side is gone; EPROTO: too short
// for its head, or too long. `descriptor` nullptr: those that come are dropped by the kernel.
int receive_packet(int socket, void* head, size_t head_size, std::string& text, UniqueFd* descriptor);

template <class Head>
int send(int socket, const Head& head, std::string_view text = {}, int descriptor = -1) {
  return send_packet(socket, &head, sizeof head, text, descriptor);
}
template <class Head>
int receive(int socket, Packet<Head>& packet) {
  return receive_packet(socket, &packet.head, sizeof packet.head, packet.text, &packet.descriptor);
}

// An error as a text of kFailed and of answers, and back.
std::string error_text(const Error& error);
Error error_of(std::string_view text);

}  // namespace snug::warden
