// Streams of snapshots and of machines that run: what comes out is what went in; hostile ones are refused.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "vmm/base/endian.h"
#include "vmm/base/sparse_file.h"
#include "vmm/cli/snapshot_stream.h"
#include "vmm/cli/stream_record.h"
#include "vmm/cli/stream_writer.h"

namespace snug::cli {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr size_t kPage = 4096;

std::string little(uint64_t value, size_t size) {
  std::string text(size, '\0');
  store_le(std::as_writable_bytes(std::span(text)), value);
  return text;
}

std::string head(uint32_t format, const std::string& name = "m") {
  return "snugsend" + little(format, 4) + little(name.size(), 1) + name;
}

std::string record(unsigned kind, uint64_t a, const std::string& body) {
  const std::string text = little(kind, 1) + little(a, 8) + little(body.size(), 4) + body;
  return text + little(record_checksum(std::as_bytes(std::span(text)), {}), 4);
}

std::string file(const std::string& name, uint64_t size) { return record(1, size, name); }

class StreamTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/snug-stream-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    ::setenv("XDG_DATA_HOME", folder_.c_str(), 1);
    in_ = UniqueFd(::memfd_create("stream", MFD_CLOEXEC));
    never_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
  }
  void TearDown() override {
    ::unsetenv("XDG_DATA_HOME");
    fs::remove_all(folder_);
  }

  // What receiving it has failed with; "": it has not.
  std::string receive(const std::string& text, const CheckFacts& check = {}) {
    EXPECT_EQ(::ftruncate(in_.get(), 0), 0);
    EXPECT_TRUE(write_at(in_.get(), std::as_bytes(std::span(text)), 0));
    return receive(check);
  }
  std::string receive(const CheckFacts& check = {}) {
    EXPECT_EQ(::lseek(in_.get(), 0, SEEK_SET), 0);
    made_.reset();
    made_.emplace(std::move(*NewSnapshot::passing()));
    const auto done = receive_snapshot_into(*made_, in_.get(), never_.get(), check);
    return done ? "" : done.error().text();
  }
  static std::string contents(int file, uint64_t size) {
    std::string all(size, '\0');
    EXPECT_TRUE(read_at(file, std::as_writable_bytes(std::span(all)), 0));
    return all;
  }

  fs::path folder_;
  UniqueFd in_;
  UniqueFd never_;
  std::optional<NewSnapshot> made_;
};

// A RAM that is written to after it has gone.
TEST_F(StreamTest, WhatHasChangedIsInThePlaceOfWhatWasThere) {
  constexpr uint64_t kPages = 1024;
  const UniqueFd memory(::memfd_create("memory", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(memory.get(), kPages * kPage), 0);
  std::string ram(kPages * kPage, '\0');
  const auto put = [&](uint64_t page, char what) { std::fill_n(ram.begin() + page * kPage, kPage, what); };
  const auto write = [&] { ASSERT_TRUE(write_at(memory.get(), std::as_bytes(std::span(ram)), 0)); };
  for (const uint64_t page : {0, 3, 5, 6, 700}) put(page, 'a');
  write();
  StreamWriter stream(in_.get());
  ASSERT_TRUE(stream.begin(kStreamOfMachine, "m"));
  ASSERT_TRUE(stream.facts("{}"));
  ASSERT_TRUE(stream.text("spec.yaml", "name: m\n"));
  ASSERT_TRUE(stream.file("memory", memory.get()));
  std::vector<uint64_t> changed(kPages / 64);
  const auto change = [&](uint64_t page, char what) {
    put(page, what);
    changed[page / 64] |= uint64_t{1} << page % 64;
  };
  change(3, 'b');
  for (const uint64_t page : {5, 6}) change(page, '\0');
  // More than a record, over words, to the last page.
  for (uint64_t page = 300; page < 700; ++page) change(page, 'c');
  change(kPages - 1, 'd');
  put(0, 'x');  // not told of: it does not go
  write();
  ASSERT_TRUE(stream.pages(memory.get(), changed));
  ASSERT_TRUE(stream.text("state", "s"));
  ASSERT_TRUE(stream.end());
  std::string told;
  ASSERT_EQ(receive([&](std::string_view facts) {
              told = facts;
              return Result<void>{};
            }),
            "");
  EXPECT_EQ(told, "{}");
  put(0, 'a');
  EXPECT_TRUE(contents(made_->memory(), ram.size()) == ram);
  EXPECT_EQ(next_data(made_->memory(), 5 * kPage, ram.size()).from, 7 * kPage) << "zeros are on the disk";
}

TEST_F(StreamTest, WhatIsMissingHereIsSaidBeforeAnythingElseHasCome) {
  const std::string begin = head(2) + record(6, 0, "facts");
  const auto refuse = [](std::string_view facts) -> Result<void> { return fail("not {}", facts); };
  EXPECT_EQ(receive(begin + std::string(4 * kRecordMax, 'x'), refuse), "not facts");
  EXPECT_EQ(::lseek(in_.get(), 0, SEEK_CUR), static_cast<off_t>(begin.size()));
  EXPECT_THAT(receive(head(2) + file("state", 1) + record(6, 0, "facts"), refuse), HasSubstr("too late"));
  EXPECT_THAT(receive(begin + record(6, 0, "facts")), HasSubstr("too late"));
}

TEST_F(StreamTest, TheFormerFormatIsRead) {
  const std::string all = head(1) + file("spec.yaml", 4) + record(2, 0, "spec") + file("state", 1) +
                          record(2, 0, "s") + file("memory", 2 * kPage) +
                          record(2, kPage, std::string(kPage, 'm')) + record(3, 3, "");
  ASSERT_EQ(receive(all), "");
  EXPECT_EQ(contents(made_->memory(), 2 * kPage), std::string(kPage, '\0') + std::string(kPage, 'm'));
  // What it has not got is unknown in it.
  for (const unsigned kind : {4u, 5u, 6u})
    EXPECT_THAT(receive(head(1) + file("memory", kPage) + record(kind, 0, little(1, 8))),
                HasSubstr(fmt::format("kind {}", kind)));
}

TEST_F(StreamTest, HostileOnesAreRefused) {
  const std::string memory = head(2) + file("memory", 2 * kPage);
  const std::string page(kPage, 'x');
  const std::vector<std::pair<std::string, const char*>> cases{
      {"", "too early"},
      {"snugsent" + little(2, 4) + little(0, 1), "nothing that"},
      {head(0), "format 0"},
      {head(3), "format 3"},
      {head(2), "too early"},
      {head(2) + record(0, 0, ""), "kind 0"},
      {head(2) + record(7, 0, ""), "kind 7"},
      {head(2) + record(4, 0, page), "belong nowhere"},  // no file yet
      {head(2) + record(5, 0, little(1, 8)), "belong nowhere"},
      {head(2) + file("state", kPage) + record(4, 0, page), "belong nowhere"},  // not the memory
      {head(2) + file("state", kPage) + record(5, 0, little(1, 8)), "belong nowhere"},
      {memory + record(4, kPage + 1, page), "belong nowhere"},  // over its end
      {memory + record(4, UINT64_MAX, page), "belong nowhere"},
      {memory + record(4, 0, ""), "belong nowhere"},
      {memory + record(5, 0, little(0, 8)), "belong nowhere"},
      {memory + record(5, 0, little(2 * kPage + 1, 8)), "belong nowhere"},
      {memory + record(5, UINT64_MAX, little(2, 8)), "belong nowhere"},
      {memory + record(5, 0, little(1, 4)), "belong nowhere"},
      {memory + record(5, 0, little(UINT64_MAX, 8)), "belong nowhere"},
      {head(2) + file("memory", kRecordMax * 4) + record(5, 0, little(kRecordMax + 1, 8)), "belong nowhere"},
      {memory + file("state", 1) + record(4, 0, page), "belong nowhere"},  // it has ended
      {memory + file("memory", 1), "twice"},
      {memory + record(3, 1, ""), "has no spec.yaml"},
      {head(2) + file("../state", 1), "has no file"},
      {head(2) + file("state", UINT64_MAX), "are the most"},
      {head(2) + file("memory", UINT64_MAX), "are the most"},
      {memory + little(4, 1) + little(0, 8) + little(UINT32_MAX, 4), "changed on its way"},
      {memory + record(4, 0, page).substr(0, 100), "too early"},
      {memory + record(4, 0, page).replace(20, 1, "y"), "changed on its way"},
  };
  for (const auto& [text, words] : cases)
    EXPECT_THAT(receive(text), HasSubstr(words)) << testing::PrintToString(text.substr(0, 64));
}

}  // namespace
}  // namespace snug::cli
