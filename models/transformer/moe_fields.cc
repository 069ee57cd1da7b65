#include "models/transformer/moe_fields.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "models/transformer/size_limits.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Bounds that no real model passes; they keep products of sizes in 64 bits.
constexpr int64_t kMaxExperts = 1 << 12;
constexpr double kMaxLossWeight = 1e6;
constexpr double kMaxNoise = 1e6;

MoeConfig::BalanceOver FromField(MixtureOfExperts::BalanceOver over) {
  switch (over) {
    case MixtureOfExperts::BATCH:
      return MoeConfig::BalanceOver::kBatch;
    case MixtureOfExperts::MICROBATCH:
      return MoeConfig::BalanceOver::kMicrobatch;
    default:
      return MoeConfig::BalanceOver::kSample;
  }
}

MixtureOfExperts::BalanceOver ToField(MoeConfig::BalanceOver over) {
  switch (over) {
    case MoeConfig::BalanceOver::kSample:
      return MixtureOfExperts::SAMPLE;
    case MoeConfig::BalanceOver::kBatch:
      return MixtureOfExperts::BATCH;
    case MoeConfig::BalanceOver::kMicrobatch:
      return MixtureOfExperts::MICROBATCH;
  }
  return MixtureOfExperts::BALANCE_OVER_UNSPECIFIED;
}

// What experts choose has no choice of the tokens to correct.
absl::Status CheckExpertsChoice(const MixtureOfExperts& moe,
                                std::string_view path,
                                const MoeConfig& config) {
  const auto refuse = [path](std::string_view field, std::string found) {
    return InvalidArgument("{}.{}: found {}, expected none with choice EXPERTS",
                           path, field, found);
  };
  if (config.normalize) return refuse("normalize", "true");
  if (config.groups > 1) {
    return refuse("groups", fmt::format("{}", config.groups));
  }
  if (config.bias_step > 0) {
    return refuse("bias_step", fmt::format("{}", config.bias_step));
  }
  if (config.balance_weight > 0) {
    return refuse("balance_loss", fmt::format("{}", config.balance_weight));
  }
  if (moe.drop() != MixtureOfExperts::DROP_UNSPECIFIED) {
    return refuse("drop", MixtureOfExperts::Drop_Name(moe.drop()));
  }
  return absl::OkStatus();
}

// How tokens find their experts. The rest of the config is resolved.
absl::Status ResolveRouting(const MixtureOfExperts& moe, std::string_view path,
                            MoeConfig& config) {
  const auto check = [path](std::string_view field, auto found, auto low,
                            auto high) {
    return CheckRange(fmt::format("{}.{}", path, field), found, low, high);
  };
  if (moe.router() == MixtureOfExperts::COSINE) {
    config.router = MoeConfig::RouterKind::kCosine;
  }
  if (moe.scores() == MixtureOfExperts::SIGMOID) {
    config.scores = MoeConfig::Scores::kSigmoid;
  }
  if (moe.choice() == MixtureOfExperts::EXPERTS) {
    config.choice = MoeConfig::Choice::kExperts;
    config.capacity_factor = 1;
    if (!moe.has_balance_loss()) config.balance_weight = 0;
  }
  if (moe.balance_over() != MixtureOfExperts::BALANCE_OVER_UNSPECIFIED) {
    config.balance_over = FromField(moe.balance_over());
  }
  if (moe.importance_over() != MixtureOfExperts::BALANCE_OVER_UNSPECIFIED) {
    config.importance_over = FromField(moe.importance_over());
  }
  if (moe.drop() == MixtureOfExperts::BY_SCORE) {
    config.drop = MoeConfig::Drop::kByScore;
  }
  if (moe.has_capacity_factor()) {
    config.capacity_factor = moe.capacity_factor();
  }
  if (moe.has_noise()) config.noise = moe.noise();
  if (moe.has_bias_step()) config.bias_step = moe.bias_step();
  RETURN_IF_ERROR(
      check("balance_loss", config.balance_weight, 0, kMaxLossWeight));
  RETURN_IF_ERROR(check("z_loss", config.z_weight, 0, kMaxLossWeight));
  RETURN_IF_ERROR(
      check("importance_loss", config.importance_weight, 0, kMaxLossWeight));
  RETURN_IF_ERROR(check("noise", config.noise, 0, kMaxNoise));
  RETURN_IF_ERROR(check("bias_step", config.bias_step, 0, 1));
  RETURN_IF_ERROR(
      check("capacity_factor", config.capacity_factor, 0, config.experts));
  if (moe.balance_over() != MixtureOfExperts::BALANCE_OVER_UNSPECIFIED &&
      config.balance_weight == 0) {
    return InvalidArgument(
        "{}.balance_over: found {}, expected a balance_loss with it", path,
        MixtureOfExperts::BalanceOver_Name(moe.balance_over()));
  }
  if (moe.importance_over() != MixtureOfExperts::BALANCE_OVER_UNSPECIFIED &&
      config.importance_weight == 0) {
    return InvalidArgument(
        "{}.importance_over: found {}, expected an importance_loss with it",
        path, MixtureOfExperts::BalanceOver_Name(moe.importance_over()));
  }
  if (moe.drop() != MixtureOfExperts::DROP_UNSPECIFIED &&
      config.capacity_factor == 0) {
    return InvalidArgument(
        "{}.drop: found {}, expected a capacity_factor with it", path,
        MixtureOfExperts::Drop_Name(moe.drop()));
  }
  if (moe.has_groups()) config.groups = moe.groups();
  if (config.groups < 1 || config.experts % config.groups != 0) {
    return InvalidArgument("{}.groups: found {}, expected a divisor of {}",
                           path, config.groups, config.experts);
  }
  config.top_groups = moe.has_top_groups() ? moe.top_groups() : config.groups;
  const int64_t size = config.experts / config.groups;
  RETURN_IF_ERROR(check("top_groups", config.top_groups, 1, config.groups));
  if (config.top_groups < config.groups &&
      (config.top_k % config.top_groups != 0 ||
       config.top_k / config.top_groups > size)) {
    return InvalidArgument(
        "{}.top_groups: found {}, expected a divisor of the {} experts of a "
        "token that leaves at most {}, the experts of a group",
        path, config.top_groups, config.top_k, size);
  }
  if (config.choice == MoeConfig::Choice::kExperts) {
    if (config.capacity_factor == 0) {
      return InvalidArgument(
          "{}.capacity_factor: found 0, expected more with choice EXPERTS",
          path);
    }
    return CheckExpertsChoice(moe, path, config);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BlockExperts> ResolveMoe(const MixtureOfExperts& moe,
                                        std::string_view path,
                                        const MoeConfig& defaults,
                                        int64_t layers) {
  BlockExperts resolved{.moe = defaults};
  MoeConfig& config = resolved.moe;
  const auto check = [path](std::string_view field, auto found, auto low,
                            auto high) {
    return CheckRange(fmt::format("{}.{}", path, field), found, low, high);
  };
  if (moe.experts() > 0) config.experts = moe.experts();
  RETURN_IF_ERROR(check("experts", config.experts, 1, kMaxExperts));
  config.top_k = moe.has_top_k()
                     ? moe.top_k()
                     : std::min<int64_t>(config.top_k, config.experts);
  RETURN_IF_ERROR(check("top_k", config.top_k, 1, config.experts));
  if (moe.has_expert_hidden()) config.expert_hidden = moe.expert_hidden();
  RETURN_IF_ERROR(
      check("expert_hidden", config.expert_hidden, 1, size_limits::kHidden));
  if (moe.has_shared_hidden()) config.shared_hidden = moe.shared_hidden();
  RETURN_IF_ERROR(
      check("shared_hidden", config.shared_hidden, 0, size_limits::kHidden));
  if (moe.expert() == MixtureOfExperts::GELU) {
    config.kind = MoeConfig::ExpertKind::kGelu;
  }
  if (moe.has_bias()) config.bias = moe.bias();
  if (moe.has_normalize()) config.normalize = moe.normalize();
  if (moe.has_balance_loss()) config.balance_weight = moe.balance_loss();
  if (moe.has_z_loss()) config.z_weight = moe.z_loss();
  if (moe.has_importance_loss()) {
    config.importance_weight = moe.importance_loss();
  }
  RETURN_IF_ERROR(ResolveRouting(moe, path, config));
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
  moe.set_bias(config.bias);
  moe.set_every(experts.every);
  moe.set_normalize(config.normalize);
  moe.set_balance_loss(config.balance_weight);
  if (config.balance_weight > 0) {
    moe.set_balance_over(ToField(config.balance_over));
  }
  moe.set_z_loss(config.z_weight);
  moe.set_importance_loss(config.importance_weight);
  if (config.importance_weight > 0) {
    moe.set_importance_over(ToField(config.importance_over));
  }
  moe.set_router(config.router == MoeConfig::RouterKind::kLinear
                     ? MixtureOfExperts::LINEAR
                     : MixtureOfExperts::COSINE);
  moe.set_scores(config.scores == MoeConfig::Scores::kSoftmax
                     ? MixtureOfExperts::SOFTMAX
                     : MixtureOfExperts::SIGMOID);
  const bool experts_choose = config.choice == MoeConfig::Choice::kExperts;
  moe.set_choice(experts_choose ? MixtureOfExperts::EXPERTS
                                : MixtureOfExperts::TOKENS);
  moe.set_groups(config.groups);
  moe.set_top_groups(config.top_groups);
  moe.set_capacity_factor(config.capacity_factor);
  if (config.capacity_factor > 0 && !experts_choose) {
    moe.set_drop(config.drop == MoeConfig::Drop::kByOrder
                     ? MixtureOfExperts::BY_ORDER
                     : MixtureOfExperts::BY_SCORE);
  }
  moe.set_noise(config.noise);
  moe.set_bias_step(config.bias_step);
}

}  // namespace trireme
