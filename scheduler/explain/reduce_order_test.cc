#include "gtest/gtest.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/explain/sensitivities.h"
#include "scheduler/pieces/transformer_pieces_testing.h"
#include "scheduler/plan/plan.h"

namespace trireme {
namespace {

// A large model of which every rank has the whole: its step is its reductions.
PlannerInput Input() {
  PlannerInput input;
  input.model.layers = 8;
  input.model.hidden = 2048;
  input.model.mlp_hidden = 8192;
  input.model.heads = 16;
  input.model.tokens = 1024;
  input.model.pieces = PiecesByFormulas();
  input.global_batch = 8;
  const absl::StatusOr<Cluster> cluster = DescribeCluster(
      {.nodes = 2, .devices_per_node = 4, .network = "ethernet-25"});
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  input.cluster = *cluster;
  return input;
}

std::string TextOf(const PlannerInput& input, Plan plan) {
  plan.mutable_grid()->set_dp(8);
  const absl::StatusOr<Plan> resolved =
      ResolvePlan(plan, {.world_size = 8,
                         .global_batch = input.global_batch,
                         .num_blocks = input.model.layers,
                         .heads = input.model.heads});
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  const absl::StatusOr<ClusterModel> cluster = ResolveCluster(input.cluster);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  const absl::StatusOr<Estimate> estimate =
      EstimatePlan(input.model, *cluster, *resolved);
  EXPECT_TRUE(estimate.ok()) << estimate.status();
  const absl::StatusOr<std::string> text =
      ReduceOrderText(input, *resolved, estimate->step_s);
  EXPECT_TRUE(text.ok()) << text.status();
  return *text;
}

TEST(ReduceOrder, WhatBitsCostIsSaidWhereTheyCost) {
  const PlannerInput input = Input();
  EXPECT_NE(TextOf(input, Plan()).find("reduce_order: FAST would take"),
            std::string::npos);
  Plan fast;
  fast.set_reduce_order(Plan::FAST);
  EXPECT_EQ(TextOf(input, fast), "");
  // This program's own collectives have no other order.
  PlannerInput direct = input;
  direct.cluster.set_collectives(Cluster::DIRECT);
  EXPECT_EQ(TextOf(direct, Plan()), "");
}

}  // namespace
}  // namespace trireme
