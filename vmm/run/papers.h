// What the warden tells a process that is to take the machine's place, of another version of the program
// perhaps: what the machine is, and which of the descriptors that it was started with is what. JSON.
//
// Versions of the program that do not know each other's papers refuse them; the machine goes on as it was.
//
// Thread: any.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"

namespace snug {

struct Papers {
  // Of the papers, and of what the machine's process and its warden say to each other (warden_protocol.h).
  static constexpr int kFormat = 1;

  struct Disk {
    int file = -1;
    int overlay = -1;  // of an ephemeral one
  };
  struct Nic {
    std::vector<int> taps;  // of mode tap
    int socket = -1;        // of a passt that is at work; or none
  };

  std::string spec;       // YAML, every default filled in, and every port that was chosen
  std::string directory;  // of the machine
  std::string cgroup;     // the folder of its control group; "": it has none
  std::string vsock_path;
  int pid = 0;  // by which the machine is known: the warden's
  bool background = false;
  bool keep = false;      // the directory outlives the machine
  bool commands = false;  // it is started for commands

  // Descriptors; -1: there is none.
  int talk = -1;  // UpdateTalk (live_update.h)
  int calls = -1;
  int news = -1;
  int state = -1;
  int memory = -1;
  int ends = -1;
  int kernel = -1;
  std::vector<int> initrds;
  std::vector<Disk> disks;
  std::vector<Nic> nics;
  int control = -1;  // listening sockets
  int console = -1;
  int vsock = -1;

  // Every descriptor of them.
  std::vector<int> descriptors() const;
  std::string text() const;
  // Errors: no papers, of another format.
  static Result<Papers> parse(std::string_view text);
};

}  // namespace snug
