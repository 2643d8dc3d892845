// What the frames say: requests, answers, and the bookkeeping of flow control. Shared by both ends; see
// frames.h. Decoders give nothing for a payload that is not exactly what it should be.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/protocol/frames.h"

namespace snug::protocol {

// The client's: versions it speaks. The agent's: the one it has chosen, twice.
struct Hello {
  uint16_t lowest = kOldestVersion;
  uint16_t highest = kVersion;
};
void put_hello(std::string& out, const Hello& hello);
std::optional<Hello> decode_hello(std::string_view payload);
// The agent's side: the highest that both speak. The client's, of the agent's answer: what it has chosen.
std::optional<uint16_t> common_version(const Hello& client);
std::optional<uint16_t> chosen_version(const Hello& answer);

// What comes from the other end, fit for a terminal: at most 1 KiB, control characters shown as "?".
std::string printable(std::string_view text);

// Why a request was not carried out. The values are the exit statuses that `snug run` and `snug exec` give.
enum class ErrorCode : uint8_t { kFailed = 125, kNotExecutable = 126, kNotFound = 127 };
struct ErrorMessage {
  ErrorCode code = ErrorCode::kFailed;
  std::string text;
};
void put_error(std::string& out, ErrorCode code, std::string_view text);
// Never fails: an unknown code is kFailed. The text is cut to 1 KiB of printable characters.
ErrorMessage decode_error(std::string_view payload);

struct WindowSize {
  uint16_t rows = 0;
  uint16_t columns = 0;
  bool operator==(const WindowSize&) const = default;
};
void put_resize(std::string& out, WindowSize size);
std::optional<WindowSize> decode_resize(std::string_view payload);

// A command to run. Arguments and variables travel in frames of their own ahead of the rest.
struct ExecRequest {
  // What Linux gives a program: a quarter of the stack's 8 MiB for all arguments and variables, each with a
  // zero behind it and a pointer to it; and less than kMaxPayload for one.
  static constexpr size_t kMaxBytes = 2 * 1024 * 1024;
  static constexpr size_t kOverhead = 1 + sizeof(uint64_t);

  std::vector<std::string> arguments;  // the program's name first
  std::vector<std::string> variables;  // NAME=VALUE
  std::string folder;                  // "": the user's home
  std::string user;                    // NAME or UID, perhaps with :GROUP; "": the agent's own
  bool tty = false;
  WindowSize size;  // of the terminal; zeros: 24 by 80
};
// Bytes of all arguments and variables, as Linux counts them.
size_t exec_size(const ExecRequest& request);
// False: larger than any guest would take.
bool put_exec(std::string& out, const ExecRequest& request);

// Puts an ExecRequest together again.
class ExecAssembler {
 public:
  enum class Result { kMore, kComplete, kTooLarge, kMalformed };
  // `frame`: kArgument, kVariable or kExec; others are malformed.
  Result take(const Frame& frame);
  ExecRequest& request() { return request_; }

 private:
  ExecRequest request_;
  size_t bytes_ = 0;
};

// How a command ended.
struct ExitStatus {
  bool signalled = false;
  uint8_t value = 0;  // its status, or the signal's number
  // As a shell shows it.
  int shell_status() const { return signalled ? 128 + value : value; }
};
void put_exit(std::string& out, const ExitStatus& status);
std::optional<ExitStatus> decode_exit(std::string_view payload);

// A file or a folder for the guest: entries follow. As cp(1): into `destination` under `name` when that is a
// folder; without a name, what is in the folder that is copied comes into it.
struct PutRequest {
  std::string destination;
  std::string name;
  bool owners = false;  // kept, by number
};
void put_put(std::string& out, const PutRequest& request);
std::optional<PutRequest> decode_put(std::string_view payload);

// One from the guest: entries come back.
void put_get(std::string& out, std::string_view source);
std::optional<std::string> decode_get(std::string_view payload);

enum class PowerAction : uint8_t { kOff = 0, kReset = 1 };
void put_power(std::string& out, PowerAction action);
std::optional<PowerAction> decode_power(std::string_view payload);

// Nanoseconds since 1970.
void put_set_time(std::string& out, uint64_t nanoseconds);
std::optional<uint64_t> decode_number64(std::string_view payload);

// The guest begins where it was saved: what is to be other than in all the others that do.
struct GoOn {
  static constexpr size_t kSeed = 32;     // bytes
  static constexpr size_t kNameMax = 64;  // as Linux has it

  uint64_t nanoseconds = 0;  // since 1970
  std::string seed;          // of its random numbers
  std::string host_name;     // "": as it is
};
void put_go_on(std::string& out, const GoOn& request);
std::optional<GoOn> decode_go_on(std::string_view payload);

// A first program that has called kWaitingPort: what belongs to this run alone.
struct Begin {
  using HardwareAddress = std::array<uint8_t, 6>;
  static constexpr size_t kInterfacesMax = 8;

  std::vector<HardwareAddress> addresses;  // of eth0, eth1, ...
  // Behind those of the kernel's command line, for the first program alone; with any, since kWordsVersion.
  std::string words = {};
};
void put_begin(std::string& out, const Begin& request);
std::optional<Begin> decode_begin(std::string_view payload);

// An interface of a guest that goes on, known by what it has.
struct AddressChange {
  Begin::HardwareAddress from{};
  Begin::HardwareAddress to{};
  bool operator==(const AddressChange&) const = default;
};
// At most Begin::kInterfacesMax.
void put_readdress(std::string& out, const std::vector<AddressChange>& changes);
std::optional<std::vector<AddressChange>> decode_readdress(std::string_view payload);

// A share of the host's (virtio-fs) for the guest's tree. One that is mounted there already is done.
struct MountRequest {
  std::string tag;
  std::string target;  // absolute; made where it is missing
  std::string file;    // the one that is in the share, to be mounted by itself; "": the share's folder
  bool readonly = false;
  bool operator==(const MountRequest&) const = default;
};
void put_mount(std::string& out, const MountRequest& request);
std::optional<MountRequest> decode_mount(std::string_view payload);

void put_number32(std::string& out, FrameType type, uint32_t value, uint8_t channel = 0);
std::optional<uint32_t> decode_number32(std::string_view payload);

// How much of a channel its sender may still send.
class SendWindow {
 public:
  uint32_t available() const { return available_; }
  void sent(uint32_t count) { available_ -= count; }
  // False: more than the window as a whole, which no receiver can mean.
  bool granted(uint32_t count);

 private:
  uint32_t available_ = kWindow;
};

// The receiver's side of it.
class ReceiveWindow {
 public:
  // False: the sender sends more than it may.
  bool received(size_t count);
  // What was passed on; gives the credit to be sent now, which may be 0.
  uint32_t consumed(size_t count);

 private:
  uint32_t open_ = kWindow;  // what the sender may still send
  uint32_t owed_ = 0;        // consumed, not yet granted
};

}  // namespace snug::protocol
