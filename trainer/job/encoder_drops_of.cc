#include "trainer/job/encoder_drops_of.h"

#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_join.h"
#include "fmt/format.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Each draws from a stream of its own, which 16 bits number.
constexpr int kMostEncoders = 256;

// What a job's part calls it.
std::string NameOf(const FieldSpec& spec) {
  return spec.num_layers > 0 ? kTextLayersName : spec.name;
}

absl::StatusOr<FieldSpec> FieldNamed(const std::string& field,
                                     const std::string& name,
                                     const ModelFamily& family) {
  std::set<std::string> known;
  for (const FieldSpec& spec : AllFields(family)) {
    const std::string of_job = NameOf(spec);
    if (of_job != kTextField && of_job != kPooledTextField &&
        of_job != kTextLayersName) {
      continue;
    }
    if (of_job == name) return spec;
    known.insert(of_job);
  }
  return InvalidArgument(
      "{}: found '{}', expected what the model reads: {}", field, name,
      known.empty() ? "no text" : absl::StrJoin(known, ", "));
}

absl::StatusOr<DroppedEncoder::Part> PartOf(const std::string& field,
                                            const EncoderDrop::Part& part,
                                            const ModelFamily& family) {
  ASSIGN_OR_RETURN(const FieldSpec spec,
                   FieldNamed(field + ".field", part.field(), family));
  const int64_t tokens = spec.shape.rank() == 2 ? spec.shape.dim(0) : 1;
  const int64_t channels = spec.shape.num_elements() / tokens;
  RETURN_IF_ERROR(
      CheckRange(field + ".first_token", part.first_token(), 0, tokens - 1));
  RETURN_IF_ERROR(CheckRange(field + ".first_channel", part.first_channel(), 0,
                             channels - 1));
  if (part.has_tokens()) {
    RETURN_IF_ERROR(CheckRange(field + ".tokens", part.tokens(), 1,
                               tokens - part.first_token()));
  }
  if (part.has_channels()) {
    RETURN_IF_ERROR(CheckRange(field + ".channels", part.channels(), 1,
                               channels - part.first_channel()));
  }
  return DroppedEncoder::Part{.field = part.field(),
                              .first_token = part.first_token(),
                              .tokens = part.tokens(),
                              .first_channel = part.first_channel(),
                              .channels = part.channels()};
}

}  // namespace

absl::StatusOr<std::vector<DroppedEncoder>> EncoderDropsOf(
    const ObjectiveConfig& objective, const ModelFamily& family) {
  RETURN_IF_ERROR(CheckRange("objective.encoder_drops",
                             objective.encoder_drops_size(), 0, kMostEncoders));
  std::vector<DroppedEncoder> drops;
  for (int i = 0; i < objective.encoder_drops_size(); ++i) {
    const EncoderDrop& config = objective.encoder_drops(i);
    const std::string field = fmt::format("objective.encoder_drops[{}]", i);
    if (config.encoder().empty() || !config.has_probability()) {
      return InvalidArgument(
          "{}.{}: found none, expected one", field,
          config.encoder().empty() ? "encoder" : "probability");
    }
    RETURN_IF_ERROR(
        CheckRange(field + ".probability", config.probability(), 0, 1));
    DroppedEncoder& drop = drops.emplace_back();
    drop.encoder = config.encoder();
    drop.probability = config.probability();
    for (int p = 0; p < config.parts_size(); ++p) {
      ASSIGN_OR_RETURN(DroppedEncoder::Part part,
                       PartOf(fmt::format("{}.parts[{}]", field, p),
                              config.parts(p), family));
      drop.parts.push_back(std::move(part));
    }
    if (!drop.parts.empty()) continue;
    RETURN_IF_ERROR(
        FieldNamed(field + ".encoder", config.encoder(), family).status());
    drop.parts.push_back({.field = config.encoder()});
  }
  return drops;
}

}  // namespace trireme
