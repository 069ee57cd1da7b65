// A model that is too large for its one device, and questions about plans with
// offload for it.

#ifndef TRIREME_SCHEDULER_SEARCH_OFFLOAD_TESTING_H_
#define TRIREME_SCHEDULER_SEARCH_OFFLOAD_TESTING_H_

#include <cstdint>

#include "gtest/gtest.h"
#include "scheduler/pieces/transformer_pieces_testing.h"
#include "scheduler/plan/plan.h"
#include "scheduler/search/candidate_plan.h"
#include "scheduler/search/search.h"

namespace trireme {

// Of the device and its host.
inline constexpr double kFlops = 100e12;
inline constexpr double kToDevice = 20e9;
inline constexpr double kToHost = 25e9;
inline constexpr double kHostMemory = 70e9;

inline constexpr int64_t kLayers = 24;
inline constexpr int64_t kHidden = 3072;
inline constexpr int64_t kTokens = 4096;
// Without biases and norms, which are a thousandth.
inline constexpr double kBlock = 12.0 * kHidden * kHidden;

// 2.7 billion parameters: 49 GB of weights, gradients and optimizer.
inline ModelShape LargeModel() {
  ModelShape model;
  model.name = "DiT";
  model.layers = kLayers;
  model.hidden = kHidden;
  model.mlp_hidden = 4 * kHidden;
  model.heads = 24;
  model.tokens = kTokens;
  model.pieces = PiecesByFormulas();
  return model;
}

// One device of 24 GB, which moves element-wise data in no time.
inline Cluster OneDevice() {
  Cluster cluster;
  Cluster::Device& device = *cluster.add_devices();
  device.set_name("small");
  device.set_peak_bf16_flops(kFlops);
  device.set_peak_fp32_flops(kFlops);
  device.set_achieved_bf16_flops(kFlops);
  device.set_memory_bytes(24'000'000'000);
  device.set_memory_bytes_per_s(1e18);
  device.set_to_device_bytes_per_s(kToDevice);
  device.set_to_host_bytes_per_s(kToHost);
  Cluster::Node& node = *cluster.add_nodes();
  node.set_name("desk");
  node.set_device("small");
  node.set_count(1);
  node.set_host_memory_bytes_per_s(kHostMemory);
  return cluster;
}

inline PlannerInput Input() {
  return {.model = LargeModel(), .cluster = OneDevice(), .global_batch = 16};
}

// FLOPs of one sample's forward through one block: products with weights, and
// attention.
inline double BlockForwardSeconds(double samples) {
  return samples * (2 * kBlock * kTokens + 4.0 * kTokens * kTokens * kHidden) /
         kFlops;
}

inline PlanReport Planned(const PlannerInput& input) {
  absl::StatusOr<PlanReport> report = MakePlan(input);
  EXPECT_TRUE(report.ok()) << report.status();
  return report.ok() ? *std::move(report) : PlanReport();
}

inline Estimate Estimated(const PlannerInput& input,
                          const Candidate& candidate) {
  const auto cluster = ResolveCluster(input.cluster);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  const auto plan =
      PlanOfCandidate(input.model, *cluster, input.global_batch, candidate);
  EXPECT_TRUE(plan.ok()) << plan.status();
  absl::StatusOr<Estimate> estimate =
      EstimatePlan(input.model, *cluster, *plan);
  EXPECT_TRUE(estimate.ok()) << estimate.status();
  return estimate.ok() ? *std::move(estimate) : Estimate();
}

// Blocks that the host updates.
inline double Leaving(const Plan& plan) {
  double blocks = 0;
  for (const Plan::Stage& stage : plan.stages()) {
    blocks += stage.blocks() - plan.offload().device_blocks();
  }
  return blocks;
}

inline Candidate Offloaded(int32_t resident_units, int32_t microbatch_size) {
  return {.microbatch_size = microbatch_size,
          .recompute = Plan::FULL,
          .offload = true,
          .resident_units = resident_units};
}

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SEARCH_OFFLOAD_TESTING_H_
