#include "guest-images/agent/drivers.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <string_view>

#include "guest-images/agent/connection.h"
#include "guest-images/agent/small_files.h"

namespace snug::agent {
namespace {

void load(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (::syscall(SYS_finit_module, file.get(), "", 0) != 0 && errno != EEXIST)
    tell_kernel_log(path + ": " + std::strerror(errno));
}

std::string line_of(std::string text) {
  text.resize(std::min(text.find('\n'), text.size()));
  return text;
}

void load_list(const std::string& modules, const std::string& id, std::set<std::string>& loaded) {
  const std::string list = read_file(modules + "/" + id + ".list");
  for (size_t at = 0; at < list.size();) {
    const size_t end = std::min(list.find('\n', at), list.size());
    if (const std::string name = list.substr(at, end - at); loaded.insert(name).second)
      load(modules + "/" + name + ".ko");
    at = end + 1;
  }
}

}  // namespace

void load_drivers(const std::string& modules, const std::string& devices) {
  std::set<std::string> ids{"any"};
  if (DIR* folder = ::opendir(devices.c_str())) {
    while (const dirent* entry = ::readdir(folder))
      if (entry->d_name[0] != '.') ids.insert(line_of(read_file(devices + "/" + entry->d_name + "/device")));
    ::closedir(folder);
  }
  std::set<std::string> loaded;
  for (const std::string& id : ids) load_list(modules, id, loaded);
}

void load_drivers_of(const std::string& modules, const std::string& id) {
  std::set<std::string> loaded;
  load_list(modules, id, loaded);
}

}  // namespace snug::agent
