// A machine's beginning in place of its kernel: a snapshot, or a template of its kind, which is found or
// made.
//
// Both processes have them, as HostEnds (host_ends.h).
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/control/control_api.h"
#include "vmm/host/template_store.h"
#include "vmm/machine/machine.h"
#include "vmm/run/machine_kind.h"
#include "vmm/run/warden_link.h"
#include "vmm/spec/spec.h"

namespace snug {

// Of a file that holds a state (vmm/core/state.h). Errors: the file; too many bytes for one.
Result<std::vector<std::byte>> read_state_file(int file);

// A machine that was saved, to begin with.
struct SavedEnds {
  UniqueFd state;
  UniqueFd memory;
  UniqueFd touched;   // what guests that begin there write to at once; or none
  bool same = false;  // the machine itself, which another process has run so far: `memory` is its RAM

  // `folder`: of the snapshot. Errors: no files of one.
  static Result<SavedEnds> open(const std::string& folder);
  Result<MachineConfig::Saved> read() const;

  // The files of its disks there, by their place in the spec: a copy of one that lasted, and what was written
  // to an ephemeral one (devices/virtio/block/disk_image.h).
  static std::string disk_name(size_t index) { return fmt::format("disk{}", index + 1); }
  static std::string overlay_name(size_t index) { return fmt::format("overlay{}", index + 1); }
};

class TemplateEnds {
 public:
  // What the machine has open by then, for its kind.
  struct BootFiles {
    std::vector<int> files;    // kernel and initrds, and disks that are no root that is left until later
    uint64_t image_bytes = 0;  // of such a root, or 0
  };
  // `kind`: of `spec`, which it points to. Nothing: there is no template of it, which is said where its user
  // wants one.
  static std::optional<TemplateEnds> open(const Spec& spec, const MachineKind& kind, const BootFiles& boot);

  // Nothing: there is none, and one is begun if it is time for that (wanted()).
  std::optional<SavedEnds> find();
  // The process of the machine, before it is locked in.
  void go_behind(WardenLink& warden);

  const MachineKind& kind() const { return kind_; }

  // In that process. Whether one is to be made; its files, once.
  bool wanted() const { return made_.state && made_.memory; }
  SnapshotFiles take_files() { return {std::move(made_.state), std::move(made_.memory), {}, true}; }
  // Whether one was found of which it is not known yet what its guests write to at once; once. Then it is
  // to be told.
  bool take_touched_wanted() { return std::exchange(touched_wanted_, false); }
  void keep_touched(const std::string& touched) { keep_touched_(touched); }
  // They are whole, or will never be.
  void keep() { keep_(); }
  void drop() { drop_(); }
  // The one that there is now: ours, or of another machine that was quicker. Errors: there is none any more.
  Result<SavedEnds> kept() { return kept_(); }

  // In the warden: what the machine's process asks for by these four. False: there is nothing to keep.
  bool keep_for_machine();
  bool keep_touched_for_machine(std::string_view touched);
  void drop_for_machine();
  Result<UniqueFd> kept_for_machine(warden::TemplateFile file);

 private:
  explicit TemplateEnds(const MachineKind& kind) : kind_(kind) {}

  MachineKind kind_;
  bool touched_wanted_ = false;
  bool refuses_ = false;  // is to be asked for no more where none can be made
  TemplateStore store_;
  TemplateStore::Files made_;
  std::function<void()> keep_;
  std::function<void()> drop_;
  std::function<Result<SavedEnds>()> kept_;
  TemplateStore::Files kept_files_;  // in the warden: to be asked for
  std::function<void(const std::string&)> keep_touched_;
};

}  // namespace snug
