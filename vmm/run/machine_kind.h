// What a template is taken of, and of whom it is good for: a kind of machine is all that has shaped its guest
// by the time that it is saved. What the guest gets afterwards is one run's own, and no part of it: what its
// shares are of, and, where its first program leaves the root until it is told to begin, the root.
//
// Thread: any.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "vmm/host/template_store.h"
#include "vmm/spec/spec.h"

namespace snug {

// What a machine is started for: commands, which the agent in its guest carries out, or what its guest does
// by itself.
enum class MachineStarts { kCommands, kSystem };

class MachineKind {
 public:
  // `nics`: with every default. Both outlive this.
  MachineKind(const Spec& spec, std::span<const NetSpec> nics, MachineStarts starts);

  // What keeps the machine from beginning as another of its kind; "": nothing.
  std::string without_template() const;

  // Whether its first program leaves the root until it is told to begin.
  bool leaves_root() const { return leaves_root_; }
  // Whether its first program begins another when it is told to begin, and the agent is one of that one's: it
  // calls when it is there.
  bool hands_over() const { return starts_ == MachineStarts::kSystem && !leaves_root_; }
  // Whether that waits to begin at all: for it has what belongs to one run alone.
  bool waits() const;
  // The word on the kernel's command line that tells it to; "": it is not to.
  std::string_view late_word() const;
  // Of the spec's disks the one that is such a root, an image: its file is no part of the kind.
  std::optional<size_t> image() const { return image_; }
  // How large the guest is to find that image, bytes: as large as others that are about as large.
  uint64_t image_room(uint64_t bytes) const;

  // The spec's part of the kernel's command line; what an image has put there and only the first program
  // reads is left out where that is told by the word to begin: told().
  std::string words() const;
  std::string told() const { return told_; }

  // All of it but the files that the machine boots and the disks that are no root. `image_bytes`: of image().
  void describe(TemplateKind& kind, uint64_t image_bytes) const;

 private:
  const Spec* spec_;
  std::span<const NetSpec> nics_;
  MachineStarts starts_;
  bool leaves_root_ = false;
  std::optional<size_t> image_;
  std::string kept_;
  std::string told_;
};

}  // namespace snug
