// What jobs are told of the table of families.

#include "models/resolve.h"

#include <string>

#include "gtest/gtest.h"
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

}  // namespace
}  // namespace trireme
