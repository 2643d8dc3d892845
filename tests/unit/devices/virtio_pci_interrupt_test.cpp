#include "tests/unit/devices/virtio_pci_driver.h"

namespace snug::test {
namespace {

TEST_F(VirtioPciTest, RaisesMessages) {
  enable_msix();
  program(1, 0x41);
  bring_up(1);
  EXPECT_TRUE(vectors.all[1]->connected());
  EXPECT_EQ(vectors.all[1]->message(), (MsiMessage{0xfee01000, 0x41}));
  serve();
  EXPECT_EQ(vectors.all[1]->take(), 1u);
  EXPECT_FALSE(line.level());
  EXPECT_EQ(in(kIsr, 1), 0u) << "MSI-X leaves the ISR alone";
}

TEST_F(VirtioPciTest, MaskedMessagesWait) {
  enable_msix();
  program(1, 0x41, true);
  bring_up(1);
  serve();
  EXPECT_EQ(vectors.all[1]->take(), 0u);
  EXPECT_EQ(in(kPending, 4), 2u);
  out(kTable + 16 + 12, 4, 0);
  EXPECT_EQ(vectors.all[1]->take(), 1u);
  EXPECT_EQ(in(kPending, 4), 0u);
  // The whole function.
  const auto control = static_cast<uint16_t>(capability(0x11) + 2);
  config_out(control, 2, 0xc000);
  EXPECT_FALSE(vectors.all[1]->connected());
  serve();
  EXPECT_EQ(in(kPending, 4), 2u);
  config_out(control, 2, 0x8000);
  EXPECT_EQ(vectors.all[1]->take(), 1u);
}

TEST_F(VirtioPciTest, AMessageIsMovedByRewritingIt) {
  enable_msix();
  program(0, 0x50);
  out(kTable + 8, 4, 0x51);
  EXPECT_EQ(vectors.all[0]->message().data, 0x51u);
  out(kTable, 8, 0x1'fee02000);
  EXPECT_EQ(vectors.all[0]->message().address, 0x1'fee02000u);
  EXPECT_EQ(in(kTable, 8), 0x1'fee02000u);
}

TEST_F(VirtioPciTest, OddAccessesToTheMessageTableDoNothing) {
  enable_msix();
  program(0, 0x50);
  out(kTable + 8, 2, 0x99);
  out(kTable + 9, 4, 0x99999999);
  out(kTable + 8, 1, 0x99);
  EXPECT_EQ(in(kTable + 8, 4), 0x50u);
  EXPECT_EQ(in(kTable + 8, 2), 0xffffu);
  // The last entry's end, and behind it.
  EXPECT_EQ(in(kTable + 3 * 16 - 4, 8), 0xffffffffffffffffu);
  EXPECT_EQ(in(kTable + 3 * 16, 4), 0u);
}

TEST_F(VirtioPciTest, VectorsThatAreNotThereAreRefused) {
  out(kConfigVector, 2, 3);
  EXPECT_EQ(in(kConfigVector, 2), 0xffffu);
  out(kConfigVector, 2, 2);
  EXPECT_EQ(in(kConfigVector, 2), 2u);
}

TEST_F(VirtioPciTest, WithoutMessagesTheLineRises) {
  bring_up();
  serve();
  EXPECT_TRUE(line.level());
  EXPECT_EQ(config_in(0x06, 2) & 8, 8u) << "interrupt status";
  EXPECT_EQ(in(kIsr, 1), 1u);
  EXPECT_FALSE(line.level()) << "reading acknowledges";
  EXPECT_EQ(in(kIsr, 1), 0u);
  device.host->config_changed();
  EXPECT_EQ(in(kIsr, 1), 2u);
  EXPECT_EQ(in(kGeneration, 1), 1u);
  // The guest may switch the line off.
  serve();
  config_out(0x04, 2, 0x0406);
  EXPECT_FALSE(line.level());
  config_out(0x04, 2, 0x0006);
  EXPECT_TRUE(line.level());
}

}  // namespace
}  // namespace snug::test
