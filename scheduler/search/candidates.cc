#include "scheduler/search/candidates.h"

#include <algorithm>
#include <array>

#include "fmt/format.h"
#include "scheduler/schedules/schedule.h"

namespace trireme {
namespace {

std::vector<int32_t> Divisors(int64_t n, int64_t largest) {
  std::vector<int32_t> divisors;
  for (int64_t d = 1; d <= std::min(n, largest); ++d) {
    if (n % d == 0) divisors.push_back(static_cast<int32_t>(d));
  }
  return divisors;
}

class Enumerator {
 public:
  Enumerator(const ModelShape& model, const ClusterModel& cluster,
             int64_t global_batch, const CandidateSpace& space)
      : model_(model),
        cluster_(cluster),
        global_batch_(global_batch),
        space_(space) {}

  std::vector<Candidate> Run() {
    const int64_t world = cluster_.num_ranks();
    for (const int32_t tp : Divisors(world, space_.max_tp)) {
      for (const int32_t cp : Divisors(world / tp, space_.max_cp)) {
        for (const int32_t pp : Divisors(world / tp / cp, space_.max_pp)) {
          Candidate grid;
          grid.offload = space_.offload == OffloadSearch::kOnly;
          grid.tp = tp;
          grid.cp = cp;
          grid.pp = pp;
          grid.dp = static_cast<int32_t>(world / tp / cp / pp);
          AddGrid(grid);
        }
      }
    }
    return std::move(result_);
  }

 private:
  void Refuse(Candidate candidate, VerdictCode code,
              std::string_view indivisible = "") {
    candidate.verdict = code;
    candidate.indivisible = indivisible;
    result_.push_back(candidate);
  }

  bool Offloads() const {
    return space_.offload == OffloadSearch::kToo ||
           space_.offload == OffloadSearch::kOnly;
  }

  bool TpStaysInNodes(int32_t tp) const {
    return std::all_of(
        cluster_.nodes.begin(), cluster_.nodes.end(),
        [tp](const ClusterNode& node) { return node.count % tp == 0; });
  }

  // Attention that gathers keys and values takes no part in the exchange: such
  // a candidate would be the one with ulysses 1 again.
  bool ExchangesHeads(const Candidate& candidate) const {
    const ModelPieces pieces = PiecesOf(
        model_,
        {.tp = candidate.tp, .cp = candidate.cp, .ulysses = candidate.ulysses},
        Plan::NONE, /*deferred=*/false);
    return std::any_of(
        pieces.blocks.begin(), pieces.blocks.end(), [](const auto& block) {
          return std::any_of(block.collectives.begin(), block.collectives.end(),
                             [](const PieceCollective& collective) {
                               return collective.group ==
                                      PieceCollective::Group::kHeads;
                             });
        });
  }

  void AddGrid(Candidate candidate) {
    if (!TpStaysInNodes(candidate.tp)) {
      return Refuse(candidate, VerdictCode::kTpCrossesNode);
    }
    if (model_.heads % candidate.tp != 0) {
      return Refuse(candidate, VerdictCode::kIndivisible, "attention heads");
    }
    if (model_.mlp_hidden % candidate.tp != 0) {
      return Refuse(candidate, VerdictCode::kIndivisible,
                    "channels of the MLP");
    }
    if (model_.shared_hidden % candidate.tp != 0) {
      return Refuse(candidate, VerdictCode::kIndivisible,
                    "channels of the shared expert");
    }
    if (!model_.context_parallel && candidate.cp > 1) {
      return Refuse(candidate, VerdictCode::kUnsupported);
    }
    if (candidate.pp > model_.layers) {
      return Refuse(candidate, VerdictCode::kTooFewBlocks);
    }
    if (candidate.dp > global_batch_) {
      return Refuse(candidate, VerdictCode::kBatchTooSmall);
    }
    if (global_batch_ % candidate.dp != 0) {
      return Refuse(candidate, VerdictCode::kIndivisible, "global batch");
    }
    for (const int32_t ulysses : Divisors(candidate.cp, candidate.cp)) {
      candidate.ulysses = ulysses;
      if (ulysses > 1 && model_.heads % (candidate.tp * ulysses) != 0) {
        Refuse(candidate, VerdictCode::kIndivisible, "attention heads");
        continue;
      }
      if (ulysses > 1 && !ExchangesHeads(candidate)) continue;
      const int64_t ranks = int64_t{candidate.tp} * candidate.cp * candidate.dp;
      for (const int32_t ep :
           Divisors(std::max<int64_t>(1, model_.experts), ranks)) {
        if (ranks % ep != 0) continue;
        candidate.ep = ep;
        AddSchedules(candidate);
      }
    }
  }

  void AddSchedules(Candidate candidate) {
    const int64_t local = global_batch_ / candidate.dp;
    const int32_t most = candidate.pp == 1
                             ? space_.max_microbatch_size_without_stages
                             : space_.max_microbatch_size;
    for (const int32_t size : Divisors(local, most)) {
      candidate.microbatch_size = size;
      const int64_t microbatches = local / size;
      if (candidate.pp == 1) {
        candidate.schedule = Plan::ONE_F_ONE_B;
        candidate.chunks = 1;
        AddMemoryChoices(candidate);
        for (const Plan::Schedule id : space_.schedules) {
          if (!FindSchedule(id)->unit_major || microbatches == 1) continue;
          candidate.schedule = id;
          AddMemoryChoices(candidate);
        }
        continue;
      }
      for (const Plan::Schedule id : space_.schedules) {
        candidate.schedule = id;
        const Schedule& schedule = *FindSchedule(id);
        if (schedule.unit_major) continue;
        const int32_t least = schedule.default_chunks;
        const int32_t most =
            std::max(least, std::min(schedule.most_chunks, space_.max_chunks));
        for (int32_t chunks = least; chunks <= most; ++chunks) {
          candidate.chunks = chunks;
          if (int64_t{chunks} * candidate.pp > model_.layers) {
            Refuse(candidate, VerdictCode::kTooFewBlocks);
          } else if (schedule.groups_microbatches &&
                     microbatches % candidate.pp != 0) {
            Refuse(candidate, VerdictCode::kIndivisible, "microbatches");
          } else {
            AddMemoryChoices(candidate);
          }
        }
      }
    }
  }

  void AddMemoryChoices(Candidate candidate) {
    for (const Plan::Sharding sharding : space_.shardings) {
      // Nothing to shard over.
      if (candidate.dp == 1 && sharding != Plan::REPLICATED) continue;
      candidate.sharding = sharding;
      for (const bool sequence : {false, true}) {
        if (sequence && (candidate.tp == 1 || !model_.sequence_parallel)) {
          continue;
        }
        candidate.sequence_parallel = sequence;
        for (const Plan::Recompute recompute : space_.recomputes) {
          candidate.recompute = recompute;
          candidate.offload = false;
          const Schedule& schedule = *FindSchedule(candidate.schedule);
          if (space_.offload != OffloadSearch::kOnly && !schedule.unit_major) {
            result_.push_back(candidate);
          }
          // Replicas that keep all of a block each only take more of it.
          const bool shares = candidate.dp == 1 || !model_.trained_leaves ||
                              sharding != Plan::REPLICATED;
          if (Offloads() && !schedule.splits_backward && shares) {
            candidate.offload = true;
            result_.push_back(candidate);
          }
        }
      }
    }
  }

  const ModelShape& model_;
  const ClusterModel& cluster_;
  const int64_t global_batch_;
  const CandidateSpace& space_;
  std::vector<Candidate> result_;
};

}  // namespace

std::string_view VerdictCodeName(VerdictCode code) {
  constexpr std::array<std::string_view, 11> kNames = {"PENDING",
                                                       "CHOSEN",
                                                       "DOMINATED",
                                                       "UNLIKELY",
                                                       "OOM",
                                                       "HOST_OOM",
                                                       "INDIVISIBLE",
                                                       "TP_CROSSES_NODE",
                                                       "BATCH_TOO_SMALL",
                                                       "TOO_FEW_BLOCKS",
                                                       "UNSUPPORTED"};
  return kNames[static_cast<size_t>(code)];
}

std::vector<Candidate> EnumerateCandidates(const ModelShape& model,
                                           const ClusterModel& cluster,
                                           int64_t global_batch,
                                           const CandidateSpace& space) {
  return Enumerator(model, cluster, global_batch, space).Run();
}

std::string ToText(const Candidate& candidate) {
  std::string text = fmt::format("tp {} x cp {} x pp {} x dp {}", candidate.tp,
                                 candidate.cp, candidate.pp, candidate.dp);
  if (candidate.cp > 1) {
    text += candidate.ulysses == 1 ? " (ring)"
            : candidate.ulysses == candidate.cp
                ? " (heads exchanged)"
                : fmt::format(" (heads exchanged by {})", candidate.ulysses);
  }
  if (candidate.ep > 1) text += fmt::format(", experts over {}", candidate.ep);
  text += fmt::format(", {}", Plan::Schedule_Name(candidate.schedule));
  if (candidate.chunks > 1) {
    text += fmt::format(" of {} chunks", candidate.chunks);
  }
  text += fmt::format(", {}{}, {} per microbatch, recompute {}",
                      Plan::Sharding_Name(candidate.sharding),
                      candidate.sequence_parallel ? ", sequence parallel" : "",
                      candidate.microbatch_size,
                      Plan::Recompute_Name(candidate.recompute));
  if (candidate.recompute_blocks > 0) {
    text += fmt::format(" of {} blocks a stage", candidate.recompute_blocks);
  }
  if (candidate.shard_group > 0) {
    text += fmt::format(", shards over {}", candidate.shard_group);
  }
  if (candidate.expert_move == Plan::Experts::WEIGHTS) {
    text += ", experts come to their rows";
  }
  if (candidate.row_chunks > 1) {
    text += fmt::format(", rows to experts in {} chunks", candidate.row_chunks);
  }
  if (candidate.node_ranks > 0) {
    text += fmt::format(", once to each node of {}", candidate.node_ranks);
  }
  if (candidate.row_copies > 0) {
    text +=
        fmt::format(", rows to {} of an expert's ranks", candidate.row_copies);
  }
  if (candidate.microbatch_group > 0) {
    text += fmt::format(", groups of {}", candidate.microbatch_group);
  }
  if (candidate.offload) text += ", offload";
  if (candidate.resident_units > 0) {
    text += fmt::format(" but for {} block{}", candidate.resident_units,
                        candidate.resident_units == 1 ? "" : "s");
  }
  if (candidate.device_blocks > 0) {
    text +=
        fmt::format(" and the first {} of a stage", candidate.device_blocks);
  }
  if (candidate.activations) text += ", inputs of blocks on the host";
  if (candidate.drive) text += ", optimizer states on a drive";
  if (candidate.host_units > 0) {
    text += fmt::format(" with all weights but for {} blocks",
                        candidate.host_units);
  }
  return text;
}

}  // namespace trireme
