// Plans for devices that may use some memory, before any rank starts.

#include "trainer/preflight/device_plan.h"

#include <cstdint>
#include <memory>

#include "gtest/gtest.h"
#include "models/dit/dit_family.h"
#include "models/objective/rectified_flow.h"
#include "runtime/core/log.h"
#include "runtime/device/compute_device.h"
#include "scheduler/cluster/cluster.h"

namespace trireme {
namespace {

// Else a job in TF32 would be given the plan of one that is several times
// slower, with copies hidden behind arithmetic that is not there. Products are
// wide enough for the arithmetic to count.
TEST(PlanWithinTest, ProductsInTf32AreCostedByTheirRate) {
  DitConfig config;
  config.hidden = 512;
  config.layers = 2;
  config.heads = 8;
  config.mlp_hidden = 2048;
  config.classes = 10;
  config.image = {.channels = 1, .height = 16, .width = 16};
  TrainingSetup setup;
  setup.family = MakeDitFamily(config);
  setup.objective = std::make_shared<RectifiedFlowObjective>(
      RectifiedFlowConfig(), /*seed=*/0, /*global_batch=*/8);
  setup.global_batch = 8;
  setup.dtype = DType::kFloat32;
  const auto cluster =
      DescribeCluster({.device = "H100", .nodes = 1, .devices_per_node = 1});
  CHECK_OK(cluster.status());
  const auto step_s = [&] {
    const auto plan =
        PlanWithin(setup, *cluster, DeviceKind::kCpu, int64_t{4} << 30);
    CHECK_OK(plan.status());
    return plan->chosen.estimate.step_s;
  };
  const double of_fp32 = step_s();
  setup.kernel_libraries.tf32 = true;
  EXPECT_LT(step_s(), of_fp32);
}

}  // namespace
}  // namespace trireme
