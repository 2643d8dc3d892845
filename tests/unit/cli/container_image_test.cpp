#include "vmm/cli/container_image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace snug::cli {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

oci::ImageConfig checked_image() {
  oci::ImageConfig config;
  config.command = {"/sbin/init"};
  config.environment = {"A=image", "B=image"};
  config.folder = "/srv";
  config.user = "web";
  config.health.command = {"/bin/check"};
  config.health.retries = 7;
  return config;
}

TEST(ContainerImage, AnInitOfItsOwnIsCheckedAsTheImageSays) {
  Spec spec;
  spec.init = InitMode::kImage;
  CommandPlan plan;
  plan.variables = {"A=spec"};
  ASSERT_TRUE(plan_image(checked_image(), spec, {}, plan));
  // It is the guest's first program, as root; commands of the spec's are, too.
  EXPECT_THAT(plan.commands, IsEmpty());
  EXPECT_EQ(plan.folder, "/");
  EXPECT_EQ(plan.user, "");
  ASSERT_TRUE(plan.health);
  EXPECT_THAT(plan.health->command.arguments, ElementsAre("/bin/check"));
  EXPECT_THAT(plan.health->command.variables, ElementsAre("A=spec", "B=image"));
  EXPECT_EQ(plan.health->command.folder, "/srv");
  EXPECT_EQ(plan.health->command.user, "web");
  EXPECT_EQ(plan.health->retries, 7U);
}

TEST(ContainerImage, TheSpecsFolderAndUserGoBeforeTheImages) {
  for (const InitMode init : {InitMode::kImage, InitMode::kAgent}) {
    Spec spec;
    spec.init = init;
    CommandPlan plan;
    plan.folder = "/tmp";
    plan.user = "root";
    ASSERT_TRUE(plan_image(checked_image(), spec, {"command"}, plan));
    EXPECT_EQ(plan.commands.size(), 1U);
    ASSERT_TRUE(plan.health);
    for (const std::string& folder : {plan.folder, plan.health->command.folder}) EXPECT_EQ(folder, "/tmp");
    for (const std::string& user : {plan.user, plan.health->command.user}) EXPECT_EQ(user, "root");
  }
}

TEST(ContainerImage, ACheckCanBeLeftOut) {
  for (const InitMode init : {InitMode::kImage, InitMode::kAgent}) {
    Spec spec;
    spec.init = init;
    spec.no_healthcheck = true;
    CommandPlan plan;
    ASSERT_TRUE(plan_image(checked_image(), spec, {}, plan));
    EXPECT_FALSE(plan.health);
  }
}

}  // namespace
}  // namespace snug::cli
