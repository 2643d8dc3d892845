// The service manager that has started us and wants to be told how we are (sd_notify(3), Type=notify of
// systemd), if one has. What cannot be told is lost: the machine does not depend on it. Main thread.
#pragma once

#include <string>

#include "vmm/spec/spec.h"

namespace snug::cli {

class ServiceManager {
 public:
  // From NOTIFY_SOCKET, which is taken out of the environment: what we start does not speak for us.
  static ServiceManager take_from_environment();

  // The guest runs.
  void ready(const std::string& machine) const;
  // The guest was asked to power off and has this long; none: as long as it wants.
  void stopping(const TimeLimit& grace) const;

 private:
  void tell(const std::string& message) const;

  std::string socket_;  // a path, or '@' and an abstract name; "": nobody wants to know
};

}  // namespace snug::cli
