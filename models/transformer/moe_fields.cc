#include "models/transformer/moe_fields.h"

#include <algorithm>
#include <utility>

#include "runtime/core/status.h"

namespace trireme {
namespace {

// Bounds that no real model passes; they keep products of sizes in 64 bits.
constexpr int64_t kMaxExperts = 1 << 12;
constexpr int64_t kMaxHidden = 1 << 17;
constexpr double kMaxLossWeight = 1e6;

}  // namespace

absl::StatusOr<BlockExperts> ResolveMoe(const MixtureOfExperts& moe,
                                        std::string_view path,
                                        const MoeConfig& defaults,
                                        int64_t layers) {
  BlockExperts resolved{.moe = defaults};
  MoeConfig& config = resolved.moe;
  const auto check = [path](std::string_view field, int64_t found, int64_t low,
                            int64_t high) -> absl::Status {
    if (found >= low && found <= high) return absl::OkStatus();
    return InvalidArgument("{}.{}: found {}, expected {} to {}", path, field,
                           found, low, high);
  };
  if (moe.experts() > 0) config.experts = moe.experts();
  RETURN_IF_ERROR(check("experts", config.experts, 1, kMaxExperts));
  config.top_k = moe.has_top_k()
                     ? moe.top_k()
                     : std::min<int64_t>(config.top_k, config.experts);
  RETURN_IF_ERROR(check("top_k", config.top_k, 1, config.experts));
  if (moe.has_expert_hidden()) config.expert_hidden = moe.expert_hidden();
  RETURN_IF_ERROR(check("expert_hidden", config.expert_hidden, 1, kMaxHidden));
  if (moe.has_shared_hidden()) config.shared_hidden = moe.shared_hidden();
  RETURN_IF_ERROR(check("shared_hidden", config.shared_hidden, 0, kMaxHidden));
  if (moe.expert() == MixtureOfExperts::GELU) {
    config.kind = MoeConfig::ExpertKind::kGelu;
  }
  if (moe.has_normalize()) config.normalize = moe.normalize();
  if (moe.has_balance_loss()) config.balance_weight = moe.balance_loss();
  if (moe.has_z_loss()) config.z_weight = moe.z_loss();
  for (const auto& [field, weight] :
       {std::pair("balance_loss", config.balance_weight),
        std::pair("z_loss", config.z_weight)}) {
    if (weight >= 0 && weight <= kMaxLossWeight) continue;
    return InvalidArgument("{}.{}: found {}, expected 0 to {}", path, field,
                           weight, kMaxLossWeight);
  }
  if (moe.has_every()) resolved.every = moe.every();
  RETURN_IF_ERROR(check("every", resolved.every, 1, layers));
  return resolved;
}

void FillMoe(const BlockExperts& experts, MixtureOfExperts& moe) {
  const MoeConfig& config = experts.moe;
  moe.set_experts(config.experts);
  moe.set_top_k(config.top_k);
  moe.set_expert_hidden(config.expert_hidden);
  moe.set_expert(config.kind == MoeConfig::ExpertKind::kSwiGlu
                     ? MixtureOfExperts::SWIGLU
                     : MixtureOfExperts::GELU);
  moe.set_shared_hidden(config.shared_hidden);
  moe.set_every(experts.every);
  moe.set_normalize(config.normalize);
  moe.set_balance_loss(config.balance_weight);
  moe.set_z_loss(config.z_weight);
}

}  // namespace trireme
