#include "guest-images/agent/first_program.h"

#include <fcntl.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "guest-images/agent/connection.h"
#include "guest-images/agent/drivers.h"
#include "guest-images/agent/interface.h"
#include "guest-images/agent/kernel_words.h"
#include "guest-images/agent/new_root.h"
#include "guest-images/agent/small_files.h"

namespace snug::agent {
namespace {

constexpr const char* kInterface = "eth0";
constexpr const char* kLate = "snug.late";
constexpr const char* kLateRoot = "root";  // its value: the root as well
constexpr const char* kLateInit = "init";  // its value: all that comes behind the initramfs
constexpr const char* kOwnInit = "snug.init";

// By the word to begin.
std::string told_words;
// Nobody has entered it yet, for that is told by the word to begin.
bool root_is_left = false;

std::string kernel_line() {
  const std::string line = read_file("/proc/cmdline");
  return told_words.empty() ? line : line + " " + told_words;
}

std::string enter_root_of(const std::string& line, NameServers servers) {
  const RootPlan plan{value_of("snug.root", line), value_of("snug.storage", line),
                      values_of("snug.volume", line), std::move(servers)};
  const std::string why = plan.where.empty() ? "" : enter_root(plan);
  return why.empty() ? why : "the root " + plan.where + " cannot be entered: " + why;
}

bool has_interface(const std::string& name = kInterface) {
  return ::access(("/sys/class/net/" + name).c_str(), F_OK) == 0;
}

NameServers configure_network() {
  NameServers servers;
  if (has_interface() && !configure_by_dhcp(kInterface, servers)) tell_kernel_log("no address by DHCP");
  return servers;
}

void raise_loopback() {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP;
  ::ioctl(socket.get(), SIOCSIFFLAGS, &request);
}

// What is there already, or what the kernel does not have, is passed over.
void mount_all() {
  for (const char* folder : {"/proc", "/sys", "/dev"}) ::mkdir(folder, 0755);
  ::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr);
  ::mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr);
  ::mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, nullptr);
  ::mkdir("/dev/pts", 0755);
  ::mkdir("/dev/shm", 01777);
  ::mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666");
  ::mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
  (void)!::symlink("/proc/self/fd", "/dev/fd");
  (void)!::symlink("/proc/self/fd/0", "/dev/stdin");
  (void)!::symlink("/proc/self/fd/1", "/dev/stdout");
  (void)!::symlink("/proc/self/fd/2", "/dev/stderr");
}

// The last one of /proc's list is the one that was opened as /dev/console.
std::string console_device() {
  std::string names = read_file("/sys/class/tty/console/active");
  while (!names.empty() && (names.back() == '\n' || names.back() == ' ')) names.pop_back();
  const size_t space = names.rfind(' ');
  return "/dev/" + (names.empty() ? "console" : names.substr(space == std::string::npos ? 0 : space + 1));
}

}  // namespace

bool is_first_program(const char* name) { return ::getpid() == 1 && std::string_view(name) == "/init"; }

void begin_guest() {
  mount_all();
  ::setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
  ::setenv("HOME", "/root", 1);
  ::setenv("TERM", "linux", 0);
  raise_loopback();
  load_drivers("/modules", "/sys/bus/pci/devices");
  const std::string line = kernel_line();
  root_is_left = value_of(kLate, line) == kLateRoot;
  // What it takes is there before it is known which.
  if (root_is_left) return load_drivers_of("/modules", "root");
  const std::string why = enter_root_of(line, has_word(kLate, line) ? NameServers() : configure_network());
  if (why.empty()) return;
  tell_kernel_log(why);
  ::sync();
  ::reboot(RB_POWER_OFF);
}

bool waits_to_begin() {
  if (root_is_left) return true;
  const std::string line = kernel_line();
  if (!has_word(kLate, line)) return false;
  return (has_interface() && !is_up(kInterface)) || !values_of(kOwnInit, line).empty();
}

bool waits_to_hand_over() { return value_of(kLate, kernel_line()) == kLateInit; }

std::string take_addresses(const protocol::Begin& request) {
  for (size_t i = 0; i < request.addresses.size(); ++i) {
    const std::string name = "eth" + std::to_string(i);
    // Without a driver there is none.
    if (has_interface(name) && !set_hardware_address(name, request.addresses[i]))
      return name + " takes no other address: " + std::strerror(errno);
  }
  return {};
}

std::string begin_run(const protocol::Begin& request) {
  told_words = request.words;
  if (std::string why = take_addresses(request); !why.empty()) return why;
  NameServers servers = configure_network();
  if (root_is_left) return enter_root_of(kernel_line(), std::move(servers));
  write_name_servers("", servers);
  return {};
}

bool hand_over() {
  const std::string line = kernel_line();
  const std::vector<std::string> words = values_of(kOwnInit, line);
  if (words.empty()) return false;
  // It is ours to be killed by the image's init at the end, not before.
  if (::fork() == 0) {
    ::setsid();
    return true;
  }
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  for (const std::string& variable : values_of("snug.env", line))
    if (const size_t equals = variable.find('='); equals != std::string::npos)
      ::setenv(variable.substr(0, equals).c_str(), variable.substr(equals + 1).c_str(), 1);
  ::signal(SIGPIPE, SIG_DFL);
  ::execvp(arguments[0], arguments.data());
  tell_kernel_log("the image's own first program cannot be started: " + words.front() + ": " +
                  std::strerror(errno));
  ::sync();
  ::reboot(RB_POWER_OFF);
  ::_exit(127);
}

void run_shell() {
  ::setsid();
  const std::string device = console_device();
  const int console = ::open(device.c_str(), O_RDWR);
  if (console < 0) return tell_kernel_log(device + ": " + std::strerror(errno));
  ::ioctl(console, TIOCSCTTY, 1);
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(console, stream);
  if (console > STDERR_FILENO) ::close(console);
  utsname system{};
  ::uname(&system);
  std::printf("snug: ready (Linux %s)\n", system.release);
  (void)std::fflush(stdout);
  if (::chdir("/root") != 0) (void)!::chdir("/");
  for (const char* shell : {"/bin/bash", "/bin/sh"}) ::execl(shell, "-sh", static_cast<char*>(nullptr));
  tell_kernel_log(std::string("no shell: ") + std::strerror(errno));
}

}  // namespace snug::agent
