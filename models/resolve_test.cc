// What jobs are told of the table of families.

#include "models/resolve.h"

#include <string>

#include "gtest/gtest.h"
#include "models/data_format.h"
#include "models/model.pb.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

TEST(ResolveModelTest, AModelOfNoFamilyIsToldOfAll) {
  Model model;
  const auto resolved = ResolveModel(model, {});
  ASSERT_FALSE(resolved.ok());
  EXPECT_EQ(MessageOf(resolved.status()),
            "model: found no family, expected dit, mmdit, hidream, triposg, "
            "shape_vae, mesh_tokens, swin, sparse_dit or sparse_vae");
}

// Whoever resolves a job before its data are there asks for them.
TEST(ResolveModelTest, AModelThatNamesClassesNeedsAsManyAsItSays) {
  Model model;
  EXPECT_EQ(LeastClasses(model), 0);
  model.mutable_dit()->set_preset(Dit::S);
  EXPECT_EQ(LeastClasses(model), 0);
  model.mutable_swin()->set_preset(Swin::MOE_B);
  DataFormat data = {.channels = 3, .resolution = 192};
  EXPECT_FALSE(ResolveModel(model, data).ok());
  data.classes = LeastClasses(model);
  const auto resolved = ResolveModel(model, data);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_TRUE((*resolved)->classifies());
}

}  // namespace
}  // namespace trireme
