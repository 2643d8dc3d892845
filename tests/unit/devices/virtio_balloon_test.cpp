#include "devices/virtio/balloon/balloon.h"

#include <cstring>

#include "tests/unit/devices/virtio_fake_host.h"
#include "vmm/base/endian.h"

namespace snug::test {
namespace {

constexpr uint64_t kStats = 2, kPoison = 16, kReporting = 32;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kPlace = 0xc00000;  // pages that these tests give back

class VirtioBalloonTest : public testing::Test {
 protected:
  VirtioBalloonTest() { balloon.start(host, kStats | kReporting); }
  void restart(uint64_t features) {
    ASSERT_TRUE(balloon.stop());
    balloon.start(host, features);
  }
  void fill(uint64_t gpa, uint64_t pages) {
    for (uint64_t i = 0; i < pages; ++i) ASSERT_TRUE(memory.store(gpa + i * kPage, kMark));
  }
  bool is_full(uint64_t gpa) { return *memory.load<uint64_t>(gpa) == kMark; }
  std::string list(const std::vector<uint64_t>& gpas) {
    std::string text(4 * gpas.size(), '\0');
    for (size_t i = 0; i < gpas.size(); ++i)
      store_le(std::as_writable_bytes(std::span(text)).subspan(4 * i, 4), gpas[i] / kPage);
    return text;
  }
  void write_config(uint64_t offset, uint32_t value) {
    std::array<std::byte, 4> bytes;
    store_le(bytes, value);
    balloon.write_config(offset, bytes);
  }
  uint64_t read_config(uint64_t offset) {
    std::array<std::byte, 4> bytes{};
    balloon.read_config(offset, bytes);
    return load_le(bytes);
  }
  void offer_report(uint16_t head, const std::vector<Part>& parts, uint16_t queue = 3) {
    QueueDriver& driver = queue == 3 ? reports : queue == 4 ? strict_reports : stats;
    driver.ring.chain(head, parts);
    driver.ring.offer(head);
    balloon.queue_ready(queue);
  }

  static constexpr uint64_t kMark = 0x5566778899aabbcc;
  GuestMemory memory = ram();
  std::vector<uint64_t> sizes;
  std::vector<BalloonStats> told;
  VirtioBalloon balloon{{.target = 8 * kMiB,
                         .on_size = [this](uint64_t bytes) { sizes.push_back(bytes); },
                         .on_stats = [this](const BalloonStats& s) { told.push_back(s); }}};
  FakeVirtioHost host{memory, 5};
  QueueDriver inflate{memory, host, balloon, 0};
  QueueDriver deflate{memory, host, balloon, 1};
  QueueDriver stats{memory, host, balloon, 2};
  QueueDriver reports{memory, host, balloon, 3};
  QueueDriver strict_reports{memory, host, balloon, 4};
};

TEST_F(VirtioBalloonTest, PagesGivenBackAreZero) {
  fill(kPlace, 8);
  inflate.give(0, list({kPlace + 2 * kPage, kPlace + kPage, kPlace + 5 * kPage, kPlace + 5 * kPage}));
  EXPECT_EQ(inflate.used(), 1);
  for (const uint64_t page : {0, 3, 4, 6, 7}) EXPECT_TRUE(is_full(kPlace + page * kPage)) << page;
  for (const uint64_t page : {1, 2, 5}) EXPECT_EQ(*memory.load<uint64_t>(kPlace + page * kPage), 0u) << page;
  EXPECT_EQ(balloon.given_back(), 3 * kPage);
  fill(kPlace, 8);
  deflate.give(0, list({kPlace + kPage, kPlace + 2 * kPage}));
  EXPECT_EQ(deflate.used(), 1);
  EXPECT_TRUE(is_full(kPlace + kPage));
}

TEST_F(VirtioBalloonTest, PagesThatAreNotRamArePassedOver) {
  fill(kRam - 4 * kPage, 4);
  std::vector<uint64_t> pages{kRam, kRam + kPage, uint64_t{0xffffffff} * kPage, uint64_t{0xfffffffe} * kPage,
                              uint64_t{0xd0000} * kPage};
  // A run across the end of RAM: what is RAM goes.
  for (uint64_t i = 1; i <= 3; ++i) pages.push_back(kRam - i * kPage);
  inflate.give(0, list(pages));
  EXPECT_EQ(inflate.used(), 1);
  EXPECT_EQ(balloon.given_back(), 3 * kPage);
  EXPECT_TRUE(is_full(kRam - 4 * kPage));
  EXPECT_EQ(*memory.load<uint64_t>(kRam - kPage), 0u);
  EXPECT_EQ(host.complaint, "");
}

TEST_F(VirtioBalloonTest, MillionsOfEntriesTakeManyTurns) {
  fill(kPlace, 1);
  // One indirect table whose 512 buffers are one list of 16384 entries.
  constexpr uint64_t kTable = 0x800000, kList = 0x900000;
  for (uint64_t i = 0; i < 16384; ++i)
    ASSERT_TRUE(memory.store(kList + 4 * i, static_cast<uint32_t>(kRam / kPage + i % 7 * 2)));
  ASSERT_TRUE(memory.store(kList + 4 * 16383, static_cast<uint32_t>(kPlace / kPage)));
  for (uint16_t i = 0; i < 512; ++i)
    inflate.ring.descriptor(kTable, i, kList, 65536, i < 511 ? kDescNext : 0, static_cast<uint16_t>(i + 1));
  inflate.ring.descriptor(0, kTable, 512 * 16, kDescIndirect);
  inflate.ring.offer(0);
  balloon.queue_ready(0);
  EXPECT_EQ(inflate.used(), 0);
  EXPECT_EQ(host.again_calls.size(), 1u);
  EXPECT_GE(host.run_turns(balloon), 2000);
  EXPECT_EQ(inflate.used(), 1);
  EXPECT_EQ(balloon.given_back(), 512 * kPage);
}

TEST_F(VirtioBalloonTest, AResetInTheMiddleOfAList) {
  constexpr uint64_t kTable = 0x800000, kList = 0x900000;
  for (uint16_t i = 0; i < 8; ++i)
    inflate.ring.descriptor(kTable, i, kList, 65536, i < 7 ? kDescNext : 0, static_cast<uint16_t>(i + 1));
  inflate.ring.descriptor(0, kTable, 8 * 16, kDescIndirect);
  inflate.ring.offer(0);
  balloon.queue_ready(0);
  restart(kReporting);
  inflate.give(1, list({kPlace}));
  EXPECT_EQ(inflate.used(), 1);
  EXPECT_EQ(inflate.ring.used_id(0), 1u);
}

TEST_F(VirtioBalloonTest, ListsOfNothing) {
  inflate.give(0, "abc");
  inflate.give(1, "");
  inflate.ring.chain(2, {{inflate.buffer(2), 4096, true}});
  inflate.ring.offer(2);
  balloon.queue_ready(0);
  EXPECT_EQ(inflate.used(), 3);
  EXPECT_EQ(balloon.given_back(), 0u);
}

TEST_F(VirtioBalloonTest, ReportedPagesGoUnlessTheGuestPoisonsThem) {
  fill(kPlace, 8);
  // Not whole pages: what lies in between.
  offer_report(
      0, {{kPlace + 100, 3 * kPage, true}, {kPlace + 5 * kPage, kPage, true}, {kPlace + 7 * kPage, 8, true}});
  EXPECT_EQ(reports.used(), 1);
  for (const uint64_t page : {0, 3, 4, 6, 7}) EXPECT_TRUE(is_full(kPlace + page * kPage)) << page;
  for (const uint64_t page : {1, 2, 5}) EXPECT_FALSE(is_full(kPlace + page * kPage)) << page;

  restart(kPoison | kReporting);
  write_config(12, 0xaaaaaaaa);
  EXPECT_EQ(read_config(12), 0xaaaaaaaau);
  fill(kPlace, 8);
  offer_report(4, {{kPlace, 8 * kPage, true}});
  EXPECT_EQ(reports.used(), 2);
  EXPECT_TRUE(is_full(kPlace));
  write_config(12, 0);
  offer_report(8, {{kPlace, 8 * kPage, true}});
  EXPECT_FALSE(is_full(kPlace)) << "zero is what comes back";
}

TEST_F(VirtioBalloonTest, ReportsOnEitherNumber) {
  fill(kPlace, 8);
  offer_report(0, {{kPlace, kPage, true}}, 4);
  EXPECT_FALSE(is_full(kPlace));
  restart(kReporting);
  offer_report(0, {{kPlace + kPage, kPage, true}}, 2);
  EXPECT_FALSE(is_full(kPlace + kPage));
  restart(kStats);
  offer_report(0, {{kPlace + 2 * kPage, kPage, true}});
  EXPECT_TRUE(is_full(kPlace + 2 * kPage)) << "not negotiated";
}

TEST_F(VirtioBalloonTest, TargetAndSize) {
  EXPECT_EQ(read_config(0), 8 * kMiB / kPage);
  balloon.set_target(4 * kMiB);
  balloon.set_target(4 * kMiB);
  EXPECT_EQ(host.config_calls, 1);
  EXPECT_EQ(read_config(0), 4 * kMiB / kPage);
  balloon.set_target(~uint64_t{0});
  EXPECT_EQ(read_config(0), 0xffffffffu);
  write_config(4, 1024);
  EXPECT_EQ(balloon.size(), 4 * kMiB);
  EXPECT_EQ(sizes, std::vector<uint64_t>{4 * kMiB});
  write_config(0, 1);
  write_config(8, 1);
  write_config(400, 1);
  EXPECT_EQ(read_config(0), 0xffffffffu);
  restart(kReporting);
  EXPECT_EQ(balloon.size(), 0u);
}

TEST_F(VirtioBalloonTest, StatisticsWhenAskedFor) {
  EXPECT_FALSE(balloon.refresh_stats());
  const auto entry = [](uint16_t tag, uint64_t value) {
    std::string text(10, '\0');
    store_le(std::as_writable_bytes(std::span(text)).first(2), tag);
    store_le(std::as_writable_bytes(std::span(text)).subspan(2), value);
    return text;
  };
  stats.give(0, entry(4, 1000) + entry(5, 2000) + entry(99, 1) + "odd");
  EXPECT_EQ(stats.used(), 0) << "the buffer stays until it is asked for";
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(balloon.stats().free, 1000u);
  EXPECT_EQ(balloon.stats().total, 2000u);
  EXPECT_EQ(balloon.stats().swap_in, std::nullopt);
  EXPECT_TRUE(balloon.refresh_stats());
  EXPECT_EQ(stats.used(), 1);
  EXPECT_FALSE(balloon.refresh_stats()) << "asked for already";
  EXPECT_TRUE(balloon.stats_awaited());
  stats.give(0, entry(4, 500));
  EXPECT_FALSE(balloon.stats_awaited());
  EXPECT_EQ(balloon.stats().free, 500u);
  // A driver that gives more than one has the older one back.
  stats.give(1, entry(4, 400));
  EXPECT_EQ(stats.used(), 2);
  EXPECT_EQ(balloon.stats().free, 400u);
}

TEST_F(VirtioBalloonTest, ABrokenRingStopsIt) {
  for (uint16_t queue = 0; queue < 4; ++queue) {
    QueueDriver& driver = queue == 0 ? inflate : queue == 1 ? deflate : queue == 2 ? stats : reports;
    host.complaint.clear();
    driver.ring.offer(77);
    balloon.queue_ready(queue);
    EXPECT_NE(host.complaint, "") << queue;
  }
}

}  // namespace
}  // namespace snug::test
