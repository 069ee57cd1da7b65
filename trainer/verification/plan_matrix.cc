#include "trainer/verification/plan_matrix.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

namespace trireme {
namespace {

// Modes that are verified together, each where its axis is in use.
struct Combination {
  Plan::Schedule schedule;
  Plan::Sharding sharding;
  bool bf16_messages;
  uint32_t ulysses;
  Plan::Recompute recompute;
};

constexpr Combination kCombinations[] = {
    {Plan::INTERLEAVED, Plan::OPTIMIZER, false, 1, Plan::SELECTIVE},
    {Plan::ZB_H1, Plan::GRADIENTS, false, 2, Plan::FULL},
    {Plan::ZB_V, Plan::PARAMETERS, false, 1, Plan::FULL},
    {Plan::ONE_F_ONE_B, Plan::PARAMETERS, false, 2, Plan::SELECTIVE},
    {Plan::INTERLEAVED, Plan::PARAMETERS, false, 2, Plan::NONE},
    {Plan::ZB_V, Plan::OPTIMIZER, true, 1, Plan::NONE},
};

uint32_t LeastDivisor(uint32_t n, uint32_t least) {
  for (uint32_t divisor = least; divisor < n; ++divisor) {
    if (n % divisor == 0) return divisor;
  }
  return n;
}

// Of the microbatches that replicas have on every pipeline of up to `pp` ranks.
uint32_t MicrobatchesOf(const PlanContext& context, uint32_t dp, uint32_t pp) {
  const auto samples = static_cast<uint32_t>(context.global_batch / dp);
  return LeastDivisor(samples, std::max(2U, pp));
}

void SetInterleaved(Plan& plan, uint32_t chunks) {
  plan.set_schedule(Plan::INTERLEAVED);
  plan.set_chunks_per_rank(chunks);
  const uint32_t pp = plan.grid().pp();
  uint32_t group = pp;
  // With fewer microbatches than ranks none will do; ResolvePlan says so.
  while (group < plan.microbatches() && plan.microbatches() % group != 0 &&
         plan.microbatches() % group < pp) {
    ++group;
  }
  plan.set_microbatch_group(group);
}

// One block on the first stage, the others' shares even.
void SetUnevenStages(Plan& plan, int64_t blocks) {
  const int64_t others = plan.grid().pp() - 1;
  plan.add_stages()->set_blocks(1);
  if (blocks - 1 < others) return;  // ResolvePlan says why not
  for (const int64_t share : EvenStages(blocks - 1, others)) {
    plan.add_stages()->set_blocks(static_cast<uint32_t>(share));
  }
}

// Ranks that share an expert.
uint32_t SharersOf(const Plan& plan, const PlanContext& context) {
  return context.experts == 0
             ? 1
             : std::max<uint32_t>(1, plan.grid().ep() / context.experts);
}

bool IsPowerOfPrime(uint32_t n) {
  const uint32_t prime = LeastDivisor(n, 2);
  while (n % prime == 0 && n > 1) n /= prime;
  return n == 1;
}

// The same for plans that must have the same bits: what remains of a resolved
// plan without pipeline, schedule, recompute and offload.
std::string KindOf(Plan plan, const PlanContext& context) {
  plan.mutable_grid()->clear_pp();
  plan.clear_placement();
  plan.clear_schedule();
  plan.clear_stages();
  plan.clear_chunks_per_rank();
  plan.clear_microbatch_group();
  plan.clear_recompute();
  plan.clear_recompute_blocks();
  plan.clear_offload();
  // With the message, whatever it says.
  if (plan.has_experts()) {
    const uint32_t copies = plan.experts().row_copies();
    plan.mutable_experts()->Clear();
    if (!IsPowerOfPrime(SharersOf(plan, context))) {
      plan.mutable_experts()->set_row_copies(copies);
    }
  }
  return plan.SerializeAsString();
}

class Builder {
 public:
  Builder(const PlanContext& context, int64_t max_ranks)
      : context_(context), max_ranks_(static_cast<uint32_t>(max_ranks)) {}

  PlanMatrix Build() {
    for (uint32_t tp = 1; tp <= max_ranks_; ++tp) {
      for (uint32_t cp = 1; tp * cp <= max_ranks_; ++cp) {
        for (uint32_t dp = 1; tp * cp * dp <= max_ranks_; ++dp) {
          for (uint32_t pp = 1; tp * cp * dp * pp <= max_ranks_; ++pp) {
            Plan::Grid grid;
            grid.set_tp(tp);
            grid.set_cp(cp);
            grid.set_dp(dp);
            grid.set_pp(pp);
            AddGrid(grid);
            if (context_.experts > 0) AddExpertGrids(grid);
          }
        }
      }
    }
    PlanMatrix matrix;
    for (const std::vector<Plan>& plans : kinds_) {
      const auto first = static_cast<int64_t>(matrix.entries.size());
      for (const Plan& plan : plans) {
        matrix.entries.push_back({plan, plans.size() > 1 ? first : -1});
      }
      matrix.entries[first].same_bits_as = -1;
    }
    matrix.left_out = std::move(left_out_);
    return matrix;
  }

 private:
  // False if the plan does not fit.
  bool Add(const Plan& plan) {
    PlanContext context = context_;
    const Plan::Grid& grid = plan.grid();
    context.world_size = int64_t{grid.tp()} * grid.cp() * grid.pp() * grid.dp();
    const absl::StatusOr<Plan> resolved = ResolvePlan(plan, context);
    if (!resolved.ok()) {
      ++left_out_[std::string(resolved.status().message())];
      return false;
    }
    if (!known_.insert(resolved->SerializeAsString()).second) return true;
    const auto [kind, is_new] = position_of_kind_.try_emplace(
        KindOf(*resolved, context_), kinds_.size());
    if (is_new) kinds_.emplace_back();
    kinds_[kind->second].push_back(*resolved);
    return true;
  }

  template <typename Change>
  void AddChanged(Plan plan, const Change& change) {
    change(plan);
    Add(plan);
  }

  void AddExpertGrids(Plan::Grid grid) {
    const uint32_t ranks = grid.tp() * grid.cp() * grid.dp();
    for (uint32_t ep = 2; ep <= ranks; ++ep) {
      if (ranks % ep != 0 ||
          (context_.experts % ep != 0 && ep % context_.experts != 0)) {
        continue;
      }
      grid.set_ep(ep);
      AddGrid(grid);
    }
  }

  void AddGrid(const Plan::Grid& grid) {
    Plan one;
    *one.mutable_grid() = grid;
    Plan several = one;
    one.set_microbatches(1);
    several.set_microbatches(
        MicrobatchesOf(context_, grid.dp(), max_ranks_ / grid.dp()));
    const Plan& usual = grid.pp() == 1 ? one : several;
    // A grid that does not fit counts once.
    if (!Add(usual)) return;
    Add(several);
    AddShards(usual);
    if (grid.pp() > 1) AddSchedules(several);
    AddOffload(several);
    if (grid.ep() > 1) AddExperts(several);
    AddChanged(usual, [](Plan& p) { p.set_recompute(Plan::SELECTIVE); });
    AddChanged(usual, [](Plan& p) { p.set_recompute(Plan::FULL); });
    AddChanged(usual, [](Plan& p) {
      p.set_recompute(Plan::FULL);
      p.set_recompute_blocks(1);
    });
    if ((grid.tp() > 1) + (grid.cp() > 1) + (grid.dp() > 1) + (grid.pp() > 1) >
        1) {
      AddCombinations(several);
    }
  }

  // What tp, cp and dp ranks share, one mode at a time.
  void AddShards(const Plan& plan) {
    const Plan::Grid& grid = plan.grid();
    if (grid.tp() > 1) {
      AddChanged(plan, [](Plan& p) { p.set_sequence_parallel(true); });
    }
    for (uint32_t ulysses = 2; ulysses <= grid.cp(); ++ulysses) {
      if (grid.cp() % ulysses != 0) continue;
      AddChanged(plan, [&](Plan& p) { p.set_ulysses(ulysses); });
    }
    if (grid.dp() == 1) return;
    const uint32_t group = LeastDivisor(grid.dp(), 2);
    for (const Plan::Sharding sharding :
         {Plan::OPTIMIZER, Plan::GRADIENTS, Plan::PARAMETERS}) {
      AddChanged(plan, [&](Plan& p) { p.set_sharding(sharding); });
      AddChanged(plan, [&](Plan& p) {
        p.set_sharding(sharding);
        p.set_shard_group(group);
      });
    }
    AddChanged(plan, [](Plan& p) { p.set_bf16_gradient_messages(true); });
  }

  // Blocks at home on the host.
  void AddOffload(const Plan& plan) {
    if (plan.grid().dp() > 1) {
      for (const Plan::Sharding sharding : {Plan::OPTIMIZER, Plan::GRADIENTS}) {
        AddChanged(plan, [&](Plan& p) {
          p.mutable_offload();
          p.set_sharding(sharding);
        });
      }
    }
    AddChanged(plan, [](Plan& p) { p.mutable_offload(); });
    AddChanged(plan, [](Plan& p) {
      p.mutable_offload()->set_resident_units(1);
      p.set_recompute(Plan::FULL);
    });
    AddChanged(plan, [](Plan& p) {
      p.mutable_offload()->set_resident_units(1);
      p.mutable_offload()->set_device_blocks(1);
    });
    AddChanged(plan, [](Plan& p) {
      p.mutable_offload()->set_activations(true);
      p.set_recompute(Plan::FULL);
    });
  }

  // Another way for each load, and so from layer to layer and step to step.
  static void AddChoices(uint32_t sharers, Plan::Experts& experts) {
    experts.set_move(Plan::Experts::ADAPTIVE);
    const auto add = [&](double max_load, Plan::Experts::Move move) {
      Plan::Experts::Choice& choice = *experts.add_choices();
      choice.set_max_load(max_load);
      choice.set_move(move);
      return &choice;
    };
    add(1.125, Plan::Experts::ROWS)->set_chunks(2);
    add(1.25, Plan::Experts::WEIGHTS);
    // Of other sums than rows to all have, where the numbers are not of one
    // prime.
    Plan::Experts::Choice* const most = add(2, Plan::Experts::ROWS);
    if (IsPowerOfPrime(sharers)) most->set_row_copies(1);
  }

  // What moves between rows and experts, and how.
  void AddExperts(const Plan& plan) {
    AddChanged(plan, [](Plan& p) { p.mutable_experts(); });
    AddChanged(plan, [](Plan& p) {
      p.mutable_experts()->set_move(Plan::Experts::WEIGHTS);
    });
    AddChanged(plan, [](Plan& p) {
      p.mutable_experts()->set_move(Plan::Experts::ADAPTIVE);
    });
    AddChanged(plan, [](Plan& p) { p.mutable_experts()->set_chunks(2); });
    const uint32_t sharers = SharersOf(plan, context_);
    AddChanged(plan,
               [&](Plan& p) { AddChoices(sharers, *p.mutable_experts()); });
    if (sharers == 1) {
      AddChanged(plan, [](Plan& p) { p.mutable_experts()->set_shadowed(1); });
    }
    for (uint32_t copies = 1; copies < sharers; ++copies) {
      if (sharers % copies != 0) continue;
      AddChanged(plan, [&](Plan& p) {
        p.mutable_experts()->set_row_copies(copies);
        if (copies > 1) p.mutable_experts()->set_chunks(2);
      });
    }
    const uint32_t of_node = LeastDivisor(plan.grid().ep(), 2);
    if (of_node == plan.grid().ep()) return;
    for (const bool once : {false, true}) {
      AddChanged(plan, [&](Plan& p) {
        p.mutable_experts()->set_node_ranks(of_node);
        p.mutable_experts()->set_deduplicate(once);
      });
    }
  }

  void AddSchedules(const Plan& plan) {
    for (const Plan::Schedule schedule :
         {Plan::GPIPE, Plan::ZB_H1, Plan::ZB_V}) {
      AddChanged(plan, [&](Plan& p) { p.set_schedule(schedule); });
    }
    AddChanged(plan, [](Plan& p) { SetInterleaved(p, 2); });
    AddChanged(plan, [](Plan& p) { SetInterleaved(p, 3); });
    AddChanged(plan, [](Plan& p) {
      SetInterleaved(p, 2);
      p.set_microbatch_group(std::max(p.grid().pp(), p.microbatches()));
    });
    AddChanged(plan, [&](Plan& p) { SetUnevenStages(p, context_.num_blocks); });
  }

  void AddCombinations(const Plan& plan) {
    const Plan::Grid& grid = plan.grid();
    for (const Combination& combination : kCombinations) {
      Plan p = plan;
      if (grid.tp() > 1) p.set_sequence_parallel(true);
      if (grid.cp() % combination.ulysses == 0) {
        p.set_ulysses(combination.ulysses);
      }
      if (grid.dp() > 1) {
        p.set_sharding(combination.sharding);
        p.set_bf16_gradient_messages(combination.bf16_messages);
      }
      if (grid.pp() > 1) {
        if (combination.schedule == Plan::INTERLEAVED) {
          SetInterleaved(p, 2);
        } else {
          p.set_schedule(combination.schedule);
        }
      }
      p.set_recompute(combination.recompute);
      Add(p);
    }
  }

  const PlanContext context_;
  const uint32_t max_ranks_;
  std::set<std::string> known_;
  std::map<std::string, size_t> position_of_kind_;
  std::vector<std::vector<Plan>> kinds_;
  std::map<std::string, int64_t> left_out_;
};

}  // namespace

PlanMatrix MakePlanMatrix(const PlanContext& context, int64_t max_ranks) {
  return Builder(context, max_ranks).Build();
}

}  // namespace trireme
