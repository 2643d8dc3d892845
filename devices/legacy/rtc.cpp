#include "devices/legacy/rtc.h"

#include <algorithm>

namespace snug {
namespace {

// MC146818A figure 9: address map.
enum Index : uint8_t {
  kSeconds = 0x00,
  kMinutes = 0x02,
  kHours = 0x04,
  kDayOfWeek = 0x06,
  kDayOfMonth = 0x07,
  kMonth = 0x08,
  kYear = 0x09,
  kRegisterA = 0x0a,
  kRegisterB = 0x0b,
  kRegisterC = 0x0c,
  kRegisterD = 0x0d,
  kCentury = 0x32,
};

constexpr uint8_t kUpdateInProgress = 0x80;  // register A, read-only
constexpr uint8_t kDividerReset = 0x60;      // register A: both bits set hold the divider in reset
constexpr uint8_t kRegisterADefault = 0x26;  // 32.768 kHz, 1024 Hz periodic rate
constexpr uint8_t kSet = 0x80;               // register B
constexpr uint8_t kUpdateInterrupt = 0x10;   // register B: UIE
constexpr uint8_t kBinary = 0x04;            // register B: DM
constexpr uint8_t k24Hours = 0x02;           // register B
constexpr uint8_t kPm = 0x80;                // hours in 12-hour mode
constexpr uint8_t kValidRamAndTime = 0x80;   // register D
constexpr uint8_t kIndexMask = 0x7f;         // bit 7 of the index port masks NMIs on a PC

constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;
// Update cycle: UIP goes high 244 us before an update that takes 1984 us at 32.768 kHz (table 6).
constexpr int64_t kUpdateNanoseconds = 244'000 + 1'984'000;

bool is_time(uint8_t index) {
  switch (index) {
    case kSeconds:
    case kMinutes:
    case kHours:
    case kDayOfWeek:
    case kDayOfMonth:
    case kMonth:
    case kYear:
    case kCentury:
      return true;
    default:
      return false;
  }
}

}  // namespace

Rtc::Rtc(WallClock clock) : clock_(std::move(clock)) {
  bytes_[kRegisterA] = kRegisterADefault;
  bytes_[kRegisterB] = k24Hours;
}

// Its distance to the host's clock stays what it was: the time that a snapshot lies on a disk has passed.
void Rtc::save(SectionWriter& out) const {
  out.number(static_cast<uint64_t>(offset_.seconds));
  out.number(static_cast<uint64_t>(offset_.nanoseconds));
  out.number(index_);
  out.bytes(std::as_bytes(std::span(bytes_)));
}

void Rtc::restore(SectionReader& in) {
  // No date that it can show is further away.
  constexpr int64_t kMost = int64_t{1} << 40;
  offset_.seconds = static_cast<int64_t>(in.number<uint64_t>());
  offset_.nanoseconds = static_cast<int64_t>(in.number_to<uint64_t>(kNanosecondsPerSecond - 1));
  index_ = in.number_to<uint8_t>(kIndexMask);
  in.bytes(std::as_writable_bytes(std::span(bytes_)));
  if (offset_.seconds < -kMost || offset_.seconds > kMost) {
    offset_.seconds = 0;
    in.refuse("a clock without a date");
  }
}

uint8_t Rtc::read_byte(uint64_t offset) {
  if (offset != 1) return 0xff;  // the index cannot be read back
  switch (index_) {
    case kRegisterA: {
      const bool updating = !halted() && now().nanoseconds >= kNanosecondsPerSecond - kUpdateNanoseconds;
      return static_cast<uint8_t>(bytes_[kRegisterA] | (updating ? kUpdateInProgress : 0));
    }
    case kRegisterC:
      return 0;
    case kRegisterD:
      return kValidRamAndTime;
    default:
      break;
  }
  if (is_time(index_) && !halted()) show(now().seconds);
  return bytes_[index_];
}

void Rtc::write_byte(uint64_t offset, uint8_t value) {
  if (offset == 0) {
    index_ = value & kIndexMask;
    return;
  }
  if (offset != 1) return;
  if (index_ == kRegisterA || index_ == kRegisterB) {
    write_control(index_, value);
  } else if (index_ == kRegisterC || index_ == kRegisterD) {
    return;  // read-only
  } else if (is_time(index_) && !halted()) {
    const Time time = now();
    show(time.seconds);
    bytes_[index_] = value;
    set_now({shown(), time.nanoseconds});
  } else {
    bytes_[index_] = value;
  }
}

// Time stands still while the guest sets it (SET) and while the divider is held in reset.
bool Rtc::halted() const {
  return (bytes_[kRegisterB] & kSet) != 0 || (bytes_[kRegisterA] & kDividerReset) == kDividerReset;
}

Rtc::Time Rtc::now() const {
  const int64_t host = clock_().time_since_epoch().count();
  Time time{host / kNanosecondsPerSecond, host % kNanosecondsPerSecond};
  if (time.nanoseconds < 0) time = {time.seconds - 1, time.nanoseconds + kNanosecondsPerSecond};
  time.seconds += offset_.seconds;
  time.nanoseconds += offset_.nanoseconds;
  if (time.nanoseconds >= kNanosecondsPerSecond)
    time = {time.seconds + 1, time.nanoseconds - kNanosecondsPerSecond};
  return time;
}

void Rtc::set_now(Time time) {
  offset_ = {0, 0};
  const Time host = now();
  offset_ = {time.seconds - host.seconds, time.nanoseconds - host.nanoseconds};
  if (offset_.nanoseconds < 0) offset_ = {offset_.seconds - 1, offset_.nanoseconds + kNanosecondsPerSecond};
}

void Rtc::write_control(uint8_t index, uint8_t value) {
  const bool was_halted = halted();
  const Time time = now();
  if (!was_halted) show(time.seconds);
  if (index == kRegisterA) {
    bytes_[kRegisterA] = static_cast<uint8_t>(value & ~kUpdateInProgress);
  } else {
    // SET clears UIE (register B description).
    bytes_[kRegisterB] = (value & kSet) != 0 ? static_cast<uint8_t>(value & ~kUpdateInterrupt) : value;
  }
  if (!was_halted || halted()) return;
  // The first update comes half a second after the divider starts (register A, DV bits), which is what
  // makes setting the clock to the second precise; SET alone leaves the divider running.
  const int64_t fraction = index == kRegisterA ? kNanosecondsPerSecond / 2 : time.nanoseconds;
  set_now({shown(), fraction});
}

void Rtc::show(int64_t seconds) {
  using namespace std::chrono;
  const sys_seconds time{std::chrono::seconds{seconds}};
  const sys_days day = floor<days>(time);
  const year_month_day date{day};
  const hh_mm_ss clock{time - day};
  // Four digits is what century and year hold.
  const auto year = static_cast<unsigned>(((static_cast<int>(date.year()) % 10000) + 10000) % 10000);
  bytes_[kSeconds] = encode(static_cast<unsigned>(clock.seconds().count()));
  bytes_[kMinutes] = encode(static_cast<unsigned>(clock.minutes().count()));
  bytes_[kHours] = encode_hour(static_cast<unsigned>(clock.hours().count()));
  bytes_[kDayOfWeek] = encode(weekday{day}.c_encoding() + 1);
  bytes_[kDayOfMonth] = encode(static_cast<unsigned>(date.day()));
  bytes_[kMonth] = encode(static_cast<unsigned>(date.month()));
  bytes_[kYear] = encode(year % 100);
  bytes_[kCentury] = encode(year / 100);
}

// The day of the week follows from the date, whatever the guest wrote.
int64_t Rtc::shown() const {
  using namespace std::chrono;
  const unsigned full_year = decode(bytes_[kCentury], 0, 99) * 100 + decode(bytes_[kYear], 0, 99);
  const year_month in{year{static_cast<int>(full_year)}, month{decode(bytes_[kMonth], 1, 12)}};
  const auto last_day = static_cast<unsigned>((in / std::chrono::last).day());
  const sys_days date{in / day{decode(bytes_[kDayOfMonth], 1, last_day)}};
  const auto time = hours{decode_hour(bytes_[kHours])} + minutes{decode(bytes_[kMinutes], 0, 59)} +
                    std::chrono::seconds{decode(bytes_[kSeconds], 0, 59)};
  return (sys_seconds{date} + time).time_since_epoch().count();
}

uint8_t Rtc::encode(unsigned value) const {
  if ((bytes_[kRegisterB] & kBinary) != 0) return static_cast<uint8_t>(value);
  return static_cast<uint8_t>((value / 10) << 4 | value % 10);
}

unsigned Rtc::decode(uint8_t raw, unsigned lowest, unsigned highest) const {
  const bool binary = (bytes_[kRegisterB] & kBinary) != 0;
  const unsigned value = binary ? raw : (raw >> 4u) * 10u + (raw & 0x0fu);
  return std::clamp(value, lowest, highest);
}

// In 12-hour mode midnight is 12 AM and noon 12 PM.
uint8_t Rtc::encode_hour(unsigned hour) const {
  if ((bytes_[kRegisterB] & k24Hours) != 0) return encode(hour);
  return static_cast<uint8_t>(encode((hour + 11) % 12 + 1) | (hour >= 12 ? kPm : 0));
}

unsigned Rtc::decode_hour(uint8_t raw) const {
  if ((bytes_[kRegisterB] & k24Hours) != 0) return decode(raw, 0, 23);
  const unsigned hour = decode(static_cast<uint8_t>(raw & ~kPm), 1, 12) % 12;
  return hour + ((raw & kPm) != 0 ? 12 : 0);
}

}  // namespace snug
