#include <algorithm>
#include <chrono>
#include <string>

#include "absl/strings/escaping.h"
#include "fmt/format.h"
#include "google/protobuf/repeated_field.h"
#include "models/resolve.h"
#include "parallel/parameters/float8_layers.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"
#include "runtime/core/timeouts.h"
#include "trainer/job/data_config.h"
#include "trainer/job/job.h"
#include "trainer/rank/model_parameters.h"

namespace trireme {
namespace {

// Of what is counted: steps, samples, tokens.
constexpr int64_t kMost = 1'000'000'000;

// Memory is counted in signed 64 bits.
constexpr uint64_t kMaxMemoryLimit = uint64_t{1} << 60;

absl::Status FillGroups(OptimizerConfig& optimizer) {
  for (int i = 0; i < optimizer.groups_size(); ++i) {
    OptimizerConfig::Group& group = *optimizer.mutable_groups(i);
    const std::string field = fmt::format("optimizer.groups[{}]", i);
    if (!group.has_learning_rate_scale()) group.set_learning_rate_scale(1);
    RETURN_IF_ERROR(CheckRange(field + ".learning_rate_scale",
                               group.learning_rate_scale(), 0, 1000));
    RETURN_IF_ERROR(
        CheckRange(field + ".weight_decay", group.weight_decay(), 0, 100));
  }
  return absl::OkStatus();
}

absl::Status FillOptimizer(OptimizerConfig& optimizer) {
  if (!optimizer.has_learning_rate()) optimizer.set_learning_rate(1e-4);
  if (!optimizer.has_warmup_steps()) optimizer.set_warmup_steps(0);
  if (optimizer.decay() == OptimizerConfig::DECAY_UNSPECIFIED) {
    optimizer.set_decay(OptimizerConfig::CONSTANT);
  }
  if (!optimizer.has_beta1()) optimizer.set_beta1(0.9);
  if (!optimizer.has_beta2()) optimizer.set_beta2(0.95);
  if (!optimizer.has_eps()) optimizer.set_eps(1e-8);
  if (!optimizer.has_weight_decay()) optimizer.set_weight_decay(0);
  if (!optimizer.has_clip_norm()) optimizer.set_clip_norm(1);
  if (!optimizer.has_ema_decay()) optimizer.set_ema_decay(0.9999);
  if (optimizer.decay() == OptimizerConfig::CONSTANT) {
    if (optimizer.has_final_learning_rate()) {
      return InvalidArgument(
          "optimizer.final_learning_rate: found {} with decay CONSTANT, "
          "expected it with COSINE or LINEAR",
          optimizer.final_learning_rate());
    }
  } else if (!optimizer.has_final_learning_rate()) {
    optimizer.set_final_learning_rate(0);
  }
  RETURN_IF_ERROR(CheckRange("optimizer.final_learning_rate",
                             optimizer.final_learning_rate(), 0, 100));
  RETURN_IF_ERROR(FillGroups(optimizer));
  const double below_one = 1.0 - 1e-12;
  RETURN_IF_ERROR(
      CheckRange("optimizer.learning_rate", optimizer.learning_rate(), 0, 100));
  RETURN_IF_ERROR(
      CheckRange("optimizer.beta1", optimizer.beta1(), 0, below_one));
  RETURN_IF_ERROR(
      CheckRange("optimizer.beta2", optimizer.beta2(), 0, below_one));
  RETURN_IF_ERROR(CheckRange("optimizer.eps", optimizer.eps(), 1e-30, 1));
  RETURN_IF_ERROR(
      CheckRange("optimizer.weight_decay", optimizer.weight_decay(), 0, 100));
  RETURN_IF_ERROR(
      CheckRange("optimizer.clip_norm", optimizer.clip_norm(), 0, 1e30));
  return CheckRange("optimizer.ema_decay", optimizer.ema_decay(), 0, below_one);
}

absl::Status FillSample(SampleConfig& sample) {
  if (!sample.has_steps()) sample.set_steps(25);
  if (!sample.has_guidance()) sample.set_guidance(2);
  if (!sample.has_per_class()) sample.set_per_class(8);
  if (!sample.has_at_end()) sample.set_at_end(true);
  RETURN_IF_ERROR(CheckRange("sample.steps", sample.steps(), 1, 10000));
  RETURN_IF_ERROR(CheckRange("sample.guidance", sample.guidance(), -100, 100));
  if (!sample.has_every()) sample.set_every(0);
  RETURN_IF_ERROR(CheckRange("sample.every", sample.every(), 0, kMost));
  if (!sample.has_temperature()) sample.set_temperature(1);
  if (!sample.has_top_k()) sample.set_top_k(0);
  if (!sample.has_top_p()) sample.set_top_p(1);
  RETURN_IF_ERROR(
      CheckRange("sample.temperature", sample.temperature(), 0, 100));
  RETURN_IF_ERROR(CheckRange("sample.top_k", sample.top_k(), 0, kMost));
  RETURN_IF_ERROR(CheckRange("sample.top_p", sample.top_p(), 0, 1));
  return CheckRange("sample.per_class", sample.per_class(), 1, 1000);
}

absl::Status FillHealth(HealthConfig& health) {
  if (health.on_bad_loss() == HealthConfig::POLICY_UNSPECIFIED) {
    health.set_on_bad_loss(HealthConfig::STOP);
  }
  if (!health.has_spike_factor()) health.set_spike_factor(0);
  if (!health.has_replica_hash_every()) health.set_replica_hash_every(0);
  if (!health.has_straggler_every()) health.set_straggler_every(100);
  if (health.spike_factor() != 0 && !(health.spike_factor() > 1)) {
    return InvalidArgument(
        "health.spike_factor: found {}, expected 0 (no loss is a spike) or "
        "more than 1",
        health.spike_factor());
  }
  return CheckRange("health.replica_hash_every", health.replica_hash_every(), 0,
                    kMost);
}

absl::Status CheckValidation(const ValidationConfig& validation,
                             const Data& data) {
  if (data.held_out() == 0 && data.idx().split() != "train") {
    return InvalidArgument(
        "validation: found with data.held_out: 0, expected samples that are "
        "held out");
  }
  return CheckRange("validation.every", validation.every(), 1, kMost);
}

absl::Status FillLossScaling(LossScaling& scaling) {
  const LossScalerOptions defaults;
  if (!scaling.has_initial()) scaling.set_initial(defaults.initial);
  if (!scaling.has_growth_interval()) {
    scaling.set_growth_interval(defaults.growth_interval);
  }
  if (!scaling.has_hysteresis()) scaling.set_hysteresis(defaults.hysteresis);
  if (!scaling.has_minimum()) scaling.set_minimum(defaults.minimum);
  RETURN_IF_ERROR(
      CheckRange("loss_scaling.minimum", scaling.minimum(), 1e-30, 1e30));
  RETURN_IF_ERROR(CheckRange("loss_scaling.initial", scaling.initial(),
                             scaling.minimum(), 1e30));
  RETURN_IF_ERROR(CheckRange("loss_scaling.growth_interval",
                             scaling.growth_interval(), 1, kMost));
  return CheckRange("loss_scaling.hysteresis", scaling.hysteresis(), 1,
                    1'000'000);
}

// `layers` have their default: beside what the job leaves out.
void LeaveOut(const char* pattern,
              google::protobuf::RepeatedPtrField<std::string>& except) {
  if (std::find(except.begin(), except.end(), pattern) == except.end()) {
    *except.Add() = pattern;
  }
}

absl::Status FillTrain(TrainConfig& train, const Init& init) {
  const bool all = train.parameters() == TrainConfig::PARAMETERS_UNSPECIFIED ||
                   train.parameters() == TrainConfig::ALL;
  const bool adapters = train.parameters() == TrainConfig::ADAPTERS;
  if (!adapters &&
      (train.has_rank() || train.has_alpha() || train.has_decompose())) {
    return InvalidArgument(
        "train.{}: found, expected it with parameters: ADAPTERS only",
        train.has_rank()    ? "rank"
        : train.has_alpha() ? "alpha"
                            : "decompose");
  }
  if (all && train.frozen() != TrainConfig::FROZEN_UNSPECIFIED) {
    return InvalidArgument(
        "train.frozen: found, expected it with parameters: LAYERS or ADAPTERS, "
        "which leave weights that do not train");
  }
  if (all) {
    if (train.layers().empty() && train.except().empty()) {
      return absl::OkStatus();
    }
    return InvalidArgument(
        "train.{}: found, expected it with parameters: LAYERS or ADAPTERS",
        train.layers().empty() ? "except" : "layers");
  }
  if (init.weights().empty()) {
    return InvalidArgument(
        "train.parameters: found {} without init.weights, expected the weights "
        "of what does not train",
        TrainConfig::Parameters_Name(train.parameters()));
  }
  if (train.layers().empty()) {
    if (!adapters) {
      return InvalidArgument(
          "train.layers: found none, expected the layers that train");
    }
    train.add_layers("blocks.*");
    LeaveOut(kLeftOutByDefault, *train.mutable_except());
  }
  if (train.frozen() == TrainConfig::FROZEN_UNSPECIFIED) {
    train.set_frozen(TrainConfig::FULL);
  }
  if (!adapters) return absl::OkStatus();
  if (!train.has_rank()) train.set_rank(16);
  RETURN_IF_ERROR(CheckRange("train.rank", train.rank(), 1, 4096));
  if (!train.has_alpha()) train.set_alpha(train.rank());
  if (!train.has_decompose()) train.set_decompose(false);
  return CheckRange("train.alpha", train.alpha(), 1e-6, 1e6);
}

absl::Status FillFloat8(Float8Config& fp8, Job::Precision precision) {
  if (precision == Job::FP16) {
    return InvalidArgument(
        "fp8: found with precision FP16, expected BF16 (FP32 or FP64 to "
        "verify)");
  }
  if (fp8.has_delayed()) {
    Float8Config::Delayed& delayed = *fp8.mutable_delayed();
    if (!delayed.has_history()) delayed.set_history(16);
    if (!delayed.has_margin()) delayed.set_margin(0);
    RETURN_IF_ERROR(CheckRange("fp8.delayed.history", delayed.history(), 1,
                               Float8Layers::kMostHistory));
    RETURN_IF_ERROR(CheckRange("fp8.delayed.margin", delayed.margin(), 0, 16));
  }
  if (!fp8.layers().empty()) return absl::OkStatus();
  fp8.add_layers("blocks.*");
  for (const char* const pattern : kNotInFloat8ByDefault) {
    LeaveOut(pattern, *fp8.mutable_except());
  }
  return absl::OkStatus();
}

// The name is a folder's and comes into logs and terminals.
absl::Status CheckName(const std::string& name) {
  constexpr size_t kMostBytes = 200;
  const bool plain = std::none_of(
      name.begin(), name.end(),
      [](unsigned char c) { return c < 0x20 || c == 0x7f || c == '/'; });
  if (plain && name != "." && name != ".." && name.size() <= kMostBytes) {
    return absl::OkStatus();
  }
  return InvalidArgument(
      "name: found '{}', expected the name of a folder: at most {} bytes, no "
      "'/' and no control characters",
      absl::Utf8SafeCEscape(name.substr(0, kMostBytes)), kMostBytes);
}

}  // namespace

absl::Status FillJobDefaults(Job& job) {
  RETURN_IF_ERROR(CheckName(job.name()));
  if (job.model().family_case() == Model::FAMILY_NOT_SET) {
    return NoFamily();
  }
  job.mutable_objective();
  RETURN_IF_ERROR(FillData(*job.mutable_data()));
  RETURN_IF_ERROR(CheckRange("global_batch", job.global_batch(), 1, 1 << 24));
  RETURN_IF_ERROR(CheckRange("steps", job.steps(), 1, kMost));
  RETURN_IF_ERROR(FillOptimizer(*job.mutable_optimizer()));
  if (job.precision() == Job::PRECISION_UNSPECIFIED) {
    job.set_precision(Job::BF16);
  }
  if (job.attention_kernels() == Job::ATTENTION_KERNELS_UNSPECIFIED) {
    job.set_attention_kernels(Job::CUDNN);
  }
  if (job.tf32() && job.precision() != Job::FP32) {
    return InvalidArgument(
        "tf32: found with precision {}, expected it with FP32 only",
        Job::Precision_Name(job.precision()));
  }
  if (job.precision() == Job::FP16) {
    RETURN_IF_ERROR(FillLossScaling(*job.mutable_loss_scaling()));
  } else if (job.has_loss_scaling()) {
    return InvalidArgument(
        "loss_scaling: found with precision {}, expected it with FP16 only",
        Job::Precision_Name(job.precision()));
  }
  if (!job.checkpoint().has_every()) job.mutable_checkpoint()->set_every(0);
  if (!job.checkpoint().has_every_minutes())
    job.mutable_checkpoint()->set_every_minutes(30);
  if (!job.checkpoint().has_keep()) job.mutable_checkpoint()->set_keep(2);
  if (!job.checkpoint().has_memory_every()) {
    job.mutable_checkpoint()->set_memory_every(0);
  }
  if (!job.checkpoint().has_memory_folder()) {
    job.mutable_checkpoint()->set_memory_folder("/dev/shm");
  }
  if (!job.log().has_every()) job.mutable_log()->set_every(10);
  RETURN_IF_ERROR(CheckRange("log.every", job.log().every(), 1, kMost));
  if (job.has_memory_limit_bytes()) {
    RETURN_IF_ERROR(CheckRange("memory_limit_bytes", job.memory_limit_bytes(),
                               1, kMaxMemoryLimit));
  }
  if (!job.has_communication_deadline_s()) {
    job.set_communication_deadline_s(
        std::chrono::duration<double>(Timeouts().communication).count());
  }
  RETURN_IF_ERROR(CheckRange("communication_deadline_s",
                             job.communication_deadline_s(), 1, 1'000'000));
  RETURN_IF_ERROR(FillHealth(*job.mutable_health()));
  if (job.has_train()) {
    RETURN_IF_ERROR(FillTrain(*job.mutable_train(), job.init()));
  }
  if (job.has_fp8()) {
    RETURN_IF_ERROR(FillFloat8(*job.mutable_fp8(), job.precision()));
  }
  if (job.has_validation()) {
    RETURN_IF_ERROR(CheckValidation(job.validation(), job.data()));
  }
  return FillSample(*job.mutable_sample());
}

}  // namespace trireme
