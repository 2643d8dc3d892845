#include "devices/legacy/rtc.h"

#include <gtest/gtest.h>

#include <chrono>

#include "tests/unit/devices/fakes.h"
#include "vmm/core/address_map.h"

namespace snug::test {
namespace {

using namespace std::chrono;
using namespace std::chrono_literals;

constexpr uint8_t kA = 0x0a, kB = 0x0b, kC = 0x0c, kD = 0x0d, kCentury = 0x32;
constexpr uint8_t kSet = 0x80, kBinary = 0x04, k24Hours = 0x02;
constexpr uint8_t kTimeBytes[] = {0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32};
constexpr uint8_t kAlarmBytes[] = {0x01, 0x03, 0x05};
constexpr uint8_t kFormats[] = {0, k24Hours, kBinary, kBinary | k24Hours};

// A date as a guest holds it.
struct Date {
  int year;
  unsigned month, day, hour, minute, second;
  bool operator==(const Date&) const = default;
};

void PrintTo(const Date& d, std::ostream* out) {
  *out << d.year << '-' << d.month << '-' << d.day << ' ' << d.hour << ':' << d.minute << ':' << d.second;
}

Date date_of(sys_seconds time) {
  const auto day = floor<days>(time);
  const year_month_day ymd{day};
  const hh_mm_ss clock{time - day};
  return {static_cast<int>(ymd.year()),
          static_cast<unsigned>(ymd.month()),
          static_cast<unsigned>(ymd.day()),
          static_cast<unsigned>(clock.hours().count()),
          static_cast<unsigned>(clock.minutes().count()),
          static_cast<unsigned>(clock.seconds().count())};
}

// A driver that reads and sets the clock as Linux's mc146818 code does, in any of its formats.
class RtcTest : public testing::Test {
 protected:
  RtcTest() { EXPECT_TRUE(ports_.bus().add({map::kPortRtc, Rtc::kPorts}, "rtc", rtc_)); }

  uint8_t get(uint8_t index) {
    ports_.out8(map::kPortRtc, index);
    return ports_.in8(map::kPortRtc + 1);
  }
  void put(uint8_t index, uint8_t value) {
    ports_.out8(map::kPortRtc, index);
    ports_.out8(map::kPortRtc + 1, value);
  }

  unsigned from(unsigned raw) { return (get(kB) & kBinary) != 0 ? raw : (raw >> 4u) * 10 + (raw & 15u); }
  uint8_t to(unsigned value) {
    return static_cast<uint8_t>((get(kB) & kBinary) != 0 ? value : value / 10 << 4 | value % 10);
  }
  unsigned get_hour() {
    const uint8_t raw = get(0x04);
    if ((get(kB) & k24Hours) != 0) return from(raw);
    const unsigned hour = from(raw & 0x7f);
    EXPECT_TRUE(hour >= 1 && hour <= 12);
    return hour % 12 + ((raw & 0x80) != 0 ? 12 : 0);
  }
  void put_hour(unsigned hour) {
    if ((get(kB) & k24Hours) != 0) return put(0x04, to(hour));
    const unsigned twelve = hour % 12 == 0 ? 12 : hour % 12;
    put(0x04, static_cast<uint8_t>(to(twelve) | (hour >= 12 ? 0x80 : 0)));
  }

  Date read() {
    return {static_cast<int>(from(get(kCentury)) * 100 + from(get(0x09))),
            from(get(0x08)),
            from(get(0x07)),
            get_hour(),
            from(get(0x02)),
            from(get(0x00))};
  }
  void set(const Date& date) {
    const uint8_t control = get(kB), rate = get(kA);
    put(kB, control | kSet);
    put(kA, rate | 0x70);
    put(0x09, to(static_cast<unsigned>(date.year % 100)));
    put(0x08, to(date.month));
    put(0x07, to(date.day));
    put_hour(date.hour);
    put(0x02, to(date.minute));
    put(0x00, to(date.second));
    put(kCentury, to(static_cast<unsigned>(date.year / 100)));
    put(kB, control);
    put(kA, rate);
  }

  sys_time<nanoseconds> now_ = sys_days{2024y / February / 29} + 12h + 34min + 56s;
  Synced<Rtc> rtc_{[this] { return now_; }};
  Ports ports_;
};

TEST_F(RtcTest, PowerOnRegisters) {
  EXPECT_EQ(get(kA), 0x26);
  EXPECT_EQ(get(kB), k24Hours);
  EXPECT_EQ(get(kC), 0);
  EXPECT_EQ(get(kD), 0x80);
  EXPECT_EQ(get(0x0f), 0);
  EXPECT_EQ(ports_.in8(map::kPortRtc), 0xff);
}

TEST_F(RtcTest, ShowsTheClock) {
  EXPECT_EQ(get(0x00), 0x56);
  EXPECT_EQ(get(0x02), 0x34);
  EXPECT_EQ(get(0x04), 0x12);
  EXPECT_EQ(get(0x06), 5) << "Thursday, Sunday being 1";
  EXPECT_EQ(get(0x07), 0x29);
  EXPECT_EQ(get(0x08), 0x02);
  EXPECT_EQ(get(0x09), 0x24);
  EXPECT_EQ(get(kCentury), 0x20);
  now_ += 24h;
  EXPECT_EQ(read(), (Date{2024, 3, 1, 12, 34, 56}));
}

TEST_F(RtcTest, NmiMaskIsNotPartOfTheIndex) {
  ports_.out8(map::kPortRtc, 0x80 | 0x07);
  EXPECT_EQ(ports_.in8(map::kPortRtc + 1), 0x29);
}

TEST_F(RtcTest, EveryDayFrom2000To2100InEveryFormat) {
  for (const uint8_t format : kFormats) {
    put(kB, format);
    for (sys_days day{2000y / January / 1}; day < sys_days{2101y / January / 1}; day += days{1}) {
      const auto time = day + seconds{day.time_since_epoch().count() * 7919 % 86400};
      now_ = time;
      ASSERT_EQ(read(), date_of(time));
      ASSERT_EQ(from(get(0x06)), weekday{day}.c_encoding() + 1);
    }
  }
}

TEST_F(RtcTest, EveryDayCanBeSet) {
  const auto start = now_;
  for (const uint8_t format : kFormats) {
    put(kB, format);
    for (sys_days day{2000y / January / 1}; day < sys_days{2101y / January / 1}; day += days{1}) {
      const auto time = day + seconds{day.time_since_epoch().count() * 6367 % 86400};
      now_ = start;
      set(date_of(time));
      ASSERT_EQ(read(), date_of(time));
      now_ += 86400s;
      ASSERT_EQ(read(), date_of(time + 86400s)) << "it goes on from there";
    }
  }
}

TEST_F(RtcTest, EveryHourInTwelveHourFormat) {
  put(kB, 0);
  const uint8_t shown[24] = {0x12, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x10, 0x11,
                             0x92, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x90, 0x91};
  for (unsigned hour = 0; hour < 24; ++hour) {
    now_ = sys_days{2030y / July / 4} + hours{hour};
    EXPECT_EQ(get(0x04), shown[hour]) << hour;
    set({2030, 7, 5, hour, 1, 2});
    EXPECT_EQ(read(), (Date{2030, 7, 5, hour, 1, 2}));
  }
}

TEST_F(RtcTest, FirstUpdateHalfASecondAfterSetting) {
  now_ += 123ms;
  set({2050, 1, 2, 3, 4, 5});
  now_ += 499ms;
  EXPECT_EQ(read(), (Date{2050, 1, 2, 3, 4, 5}));
  now_ += 2ms;
  EXPECT_EQ(read(), (Date{2050, 1, 2, 3, 4, 6}));
}

TEST_F(RtcTest, StandsStillWhileSet) {
  put(kB, k24Hours | kSet);
  now_ += 3600s;
  EXPECT_EQ(read(), (Date{2024, 2, 29, 12, 34, 56}));
  put(kB, k24Hours);
  EXPECT_EQ(read(), (Date{2024, 2, 29, 12, 34, 56}));
  now_ += 5s;
  EXPECT_EQ(read(), (Date{2024, 2, 29, 12, 35, 1}));
}

TEST_F(RtcTest, UpdateInProgressBeforeEachSecond) {
  now_ += 997ms;
  EXPECT_EQ(get(kA), 0x26);
  now_ += 1ms;
  EXPECT_EQ(get(kA), 0xa6);
  put(kB, k24Hours | kSet);
  EXPECT_EQ(get(kA), 0x26) << "no updates while the guest sets the time";
  put(kB, k24Hours);
  now_ += 2ms;
  EXPECT_EQ(get(kA), 0x26);
  put(kA, 0xff);
  EXPECT_EQ(get(kA), 0x7f) << "read-only";
}

TEST_F(RtcTest, WritesWhileRunningTakeEffect) {
  put(0x02, 0x00);
  EXPECT_EQ(read(), (Date{2024, 2, 29, 12, 0, 56}));
  put(kCentury, 0x19);
  EXPECT_EQ(read(), (Date{1924, 2, 29, 12, 0, 56}));
  put(0x09, 0x23);
  EXPECT_EQ(read(), (Date{1923, 2, 28, 12, 0, 56})) << "no such day: the nearest that is";
}

TEST_F(RtcTest, NonsenseIsClamped) {
  put(kB, k24Hours | kBinary | kSet);
  for (const uint8_t index : kTimeBytes) put(index, 0xff);
  EXPECT_EQ(get(0x08), 0xff) << "held as written until the clock runs";
  put(kB, k24Hours | kBinary);
  EXPECT_EQ(read(), (Date{9999, 12, 31, 23, 59, 59}));
  now_ += 1s;
  EXPECT_EQ(read(), (Date{0, 1, 1, 0, 0, 0})) << "four digits";
  put(kB, k24Hours | kSet);
  for (const uint8_t index : kTimeBytes) put(index, 0x00);
  put(kB, k24Hours);
  EXPECT_EQ(read(), (Date{0, 1, 1, 0, 0, 0}));
}

TEST_F(RtcTest, MemoryKeepsItsBytes) {
  const auto is_plain = [](unsigned i) { return i > 0x0d && i != kCentury; };
  for (unsigned i = 0; i < Rtc::kSize; ++i)
    if (is_plain(i)) put(static_cast<uint8_t>(i), static_cast<uint8_t>(i * 37));
  for (const uint8_t alarm : kAlarmBytes) put(alarm, 0xc0);
  put(kC, 0xff);
  put(kD, 0x00);
  for (unsigned i = 0; i < Rtc::kSize; ++i) {
    if (is_plain(i)) {
      EXPECT_EQ(get(static_cast<uint8_t>(i)), static_cast<uint8_t>(i * 37));
    }
  }
  for (const uint8_t alarm : kAlarmBytes) EXPECT_EQ(get(alarm), 0xc0);
  EXPECT_EQ(get(kC), 0);
  EXPECT_EQ(get(kD), 0x80);
  EXPECT_EQ(read(), (Date{2024, 2, 29, 12, 34, 56}));
}

TEST_F(RtcTest, AnyHostTime) {
  for (const auto time :
       {sys_time<nanoseconds>::min(), sys_time<nanoseconds>::max(), sys_time<nanoseconds>{-1ns}}) {
    now_ = time;
    const Date date = read();
    EXPECT_EQ(date, date_of(floor<seconds>(time)));
  }
  set({9999, 12, 31, 23, 59, 59});
  now_ = sys_time<nanoseconds>::max();
  read();
  set({0, 1, 1, 0, 0, 0});
  now_ = sys_time<nanoseconds>::min();
  read();
}

}  // namespace
}  // namespace snug::test
