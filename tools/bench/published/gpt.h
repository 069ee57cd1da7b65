// What a GPT costs beyond what the planner knows of transformers: a vocabulary
// at both ends and, under the Megatron-LM of 2021, unfused attention, dropout,
// and messages between stages that are scattered and waited for.
//
// Its ends are given to the planner as sizes (GptShape); the rest is charged
// to a plan's costs when they are made (ChargeGpt).

#ifndef TRIREME_TOOLS_BENCH_PUBLISHED_GPT_H_
#define TRIREME_TOOLS_BENCH_PUBLISHED_GPT_H_

#include <cstdint>
#include <string>

#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

struct Gpt {
  std::string name;
  int64_t layers = 0;
  int64_t hidden = 0;  // MLPs of four times as much
  int64_t heads = 0;
  int64_t tokens = 0;
  int64_t vocabulary = 0;
  // As in 2021: attention keeps and moves whole score matrices, with dropout
  // after it and after the MLP; without sequence parallelism each rank of tp
  // sends its share of a message, and the receivers gather it; senders wait
  // until a message has arrived.
  bool megatron_2021 = false;
  int64_t gradient_bytes = 2;
};

// In fp16 over `pp` stages: with more than one, the last has a copy of the
// first one's table for its logits.
ModelShape GptShape(const Gpt& gpt, int64_t pp);

// Adds to one replica's costs of GptShape what the shape does not say. All
// nodes of the cluster are alike, and hold whole tensor-parallel groups.
void ChargeGpt(const Gpt& gpt, const ClusterModel& cluster, const Plan& plan,
               PlanCosts& costs);

}  // namespace trireme

#endif  // TRIREME_TOOLS_BENCH_PUBLISHED_GPT_H_
