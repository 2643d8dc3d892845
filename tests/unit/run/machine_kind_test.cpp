#include "vmm/run/machine_kind.h"

#include <gtest/gtest.h>

#include <functional>

namespace snug {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

Spec machine() {
  Spec spec;
  spec.memory = 128 * kMiB;
  spec.cmdline = "quiet snug.agent";
  return spec;
}

Spec with_share() {
  Spec spec = machine();
  ShareSpec share;
  share.source = "/home/user/one";
  share.target = "/work";
  share.tag = "share0";
  spec.shares.push_back(share);
  return spec;
}

// As `snug run --image` makes it.
Spec with_image(const std::string& words = "") {
  Spec spec = machine();
  spec.cmdline = "snug.root=/dev/pmem0" + words + " quiet snug.agent";
  spec.image = "alpine";
  DiskSpec image;
  image.path = "/images/one";
  image.mode = DiskMode::kPmem;
  image.readonly = true;
  spec.disks.push_back(image);
  return spec;
}

std::string kind_of(const Spec& spec, uint64_t image_bytes = 0) {
  const std::vector<NetSpec> none;
  TemplateKind kind;
  MachineKind(spec, none, MachineStarts::kCommands).describe(kind, image_bytes);
  return kind.name();
}

std::string kind_of(Spec spec, const std::function<void(Spec&)>& change) {
  change(spec);
  return kind_of(spec);
}

TEST(MachineKind, AShareIsWhateverIsMountedLater) {
  const Spec one = with_share();
  EXPECT_EQ(MachineKind(one, {}, MachineStarts::kCommands).without_template(), "");
  EXPECT_FALSE(MachineKind(one, {}, MachineStarts::kCommands).waits());
  const std::string kind = kind_of(one);
  EXPECT_NE(kind, kind_of(machine())) << "it has a device";
  const auto same = [&](const std::function<void(ShareSpec&)>& change) {
    return kind_of(one, [&](Spec& spec) { change(spec.shares.front()); }) == kind;
  };
  EXPECT_TRUE(same([](ShareSpec& share) { share.source = "/home/user/two"; }));
  EXPECT_TRUE(same([](ShareSpec& share) { share.target = "/elsewhere"; }));
  EXPECT_TRUE(same([](ShareSpec& share) { share.readonly = true; }));
  EXPECT_TRUE(same([](ShareSpec& share) { share.cache = ShareCacheMode::kNone; }));
  EXPECT_TRUE(same([](ShareSpec& share) { share.submounts = true; }));
  EXPECT_TRUE(same([](ShareSpec& share) { share.uid = share.gid = 1000; }));
  // What the guest has read of the device.
  EXPECT_FALSE(same([](ShareSpec& share) { share.tag = "mine"; }));
  EXPECT_NE(kind, kind_of(one, [](Spec& spec) {
              spec.shares.push_back(spec.shares.front());
              spec.shares.back().tag = "share1";
            }));
}

TEST(MachineKind, ARootOfTheHostIsLeftUntilLater) {
  Spec spec = machine();
  spec.root = "/";
  const MachineKind kind(spec, {}, MachineStarts::kCommands);
  EXPECT_EQ(kind.without_template(), "");
  EXPECT_TRUE(kind.leaves_root() && kind.waits());
  EXPECT_EQ(kind.words(), spec.cmdline);
  EXPECT_EQ(kind.told(), "");
  EXPECT_EQ(kind_of(spec), kind_of(spec, [](Spec& other) { other.root = "/srv/root"; }));
  EXPECT_NE(kind_of(spec), kind_of(machine()));
}

TEST(MachineKind, AnImageIsAnyOfAboutItsSize) {
  const Spec one = with_image(" snug.volume=/data snug.init=/sbin/init snug.env=A%3D1");
  const MachineKind kind(one, {}, MachineStarts::kCommands);
  EXPECT_EQ(kind.without_template(), "");
  EXPECT_TRUE(kind.leaves_root() && kind.waits());
  EXPECT_EQ(kind.image(), size_t{0});
  EXPECT_EQ(kind.words(), "snug.root=/dev/pmem0 quiet snug.agent");
  EXPECT_EQ(kind.told(), "snug.volume=/data snug.init=/sbin/init snug.env=A%3D1");
  EXPECT_EQ(kind_of(one, 8 * kMiB), kind_of(with_image(), 30 * kMiB));
  EXPECT_NE(kind_of(one, 8 * kMiB), kind_of(one, 65 * kMiB));
  Spec other = with_image();
  other.disks.front().path = "/images/two";
  EXPECT_EQ(kind_of(one, 8 * kMiB), kind_of(other, 8 * kMiB));
  // Another disk behind it is one as any.
  DiskSpec disk;
  disk.path = "/disk";
  disk.readonly = true;
  other.disks.push_back(disk);
  EXPECT_EQ(MachineKind(other, {}, MachineStarts::kCommands).image(), size_t{0});
  EXPECT_NE(kind_of(one, 8 * kMiB), kind_of(other, 8 * kMiB));
}

TEST(MachineKind, WhatIsNoSuchImageIsAsItIs) {
  // Its writes would be somebody's.
  Spec written = with_image();
  written.disks.front().readonly = false;
  EXPECT_FALSE(MachineKind(written, {}, MachineStarts::kCommands).leaves_root());
  EXPECT_NE(MachineKind(written, {}, MachineStarts::kCommands).without_template(), "");
  Spec disk = with_image(" snug.volume=/data");
  disk.cmdline.replace(0, std::string("snug.root=/dev/pmem0").size(), "snug.root=/dev/vda");
  disk.disks.front().mode = DiskMode::kBlock;
  EXPECT_FALSE(MachineKind(disk, {}, MachineStarts::kCommands).leaves_root());
  EXPECT_EQ(MachineKind(disk, {}, MachineStarts::kCommands).words(), disk.cmdline);
  // Words in quotes are not taken apart.
  const Spec quoted = with_image(" dyndbg=\"a snug.volume=/b\"");
  EXPECT_FALSE(MachineKind(quoted, {}, MachineStarts::kCommands).leaves_root());
  EXPECT_EQ(MachineKind(quoted, {}, MachineStarts::kCommands).words(), quoted.cmdline);
  // Memory of the guest's own that no root is on.
  Spec data = with_image();
  data.cmdline = "quiet";
  EXPECT_FALSE(MachineKind(data, {}, MachineStarts::kCommands).image());
}

TEST(MachineKind, ASystemWaitsInItsInitramfsWhateverItHas) {
  const Spec spec = machine();
  const MachineKind command(spec, {}, MachineStarts::kCommands), system(spec, {}, MachineStarts::kSystem);
  EXPECT_EQ(command.late_word(), "");
  EXPECT_FALSE(command.hands_over());
  EXPECT_EQ(system.late_word(), "snug.late=init");
  EXPECT_TRUE(system.hands_over() && system.waits());
  TemplateKind one, other;
  command.describe(one, 0);
  system.describe(other, 0);
  EXPECT_NE(one.name(), other.name());
  // One with snug's own first program, whose shell is what it does by itself.
  Spec rooted = machine();
  rooted.root = "/";
  EXPECT_EQ(MachineKind(rooted, {}, MachineStarts::kSystem).late_word(), "snug.late=root");
  EXPECT_FALSE(MachineKind(rooted, {}, MachineStarts::kSystem).hands_over());
}

TEST(MachineKind, AnImageHasRoomAtAModestPrice) {
  Spec spec = with_image();
  spec.memory = 512 * kMiB;
  const auto room = [&spec](uint64_t mib) {
    return MachineKind(spec, {}, MachineStarts::kCommands).image_room(mib * kMiB) / kMiB;
  };
  EXPECT_EQ(room(1), 64);
  EXPECT_EQ(room(64), 64);
  EXPECT_EQ(room(65), 96);
  EXPECT_EQ(room(97), 128);
  EXPECT_EQ(room(128), 128);
  EXPECT_EQ(room(700), 768);
  EXPECT_EQ(room(800), 1024);
  // 32 MiB of 512 to note what is not there are too much.
  EXPECT_EQ(room(2500), 3072);
  EXPECT_EQ(room(4097), 4098);
  EXPECT_EQ(MachineKind(spec, {}, MachineStarts::kCommands).image_room(4097 * kMiB + 1) % (2 * kMiB), 0);
  for (uint64_t bytes = 1; bytes < uint64_t{1} << 40; bytes = bytes * 3 + 12345)
    EXPECT_GE(MachineKind(spec, {}, MachineStarts::kCommands).image_room(bytes), bytes);
}

}  // namespace
}  // namespace snug
