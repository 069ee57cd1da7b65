#include "models/autoencoder/autoencoder_config.h"

#include <string_view>

#include "models/weights/folder_tensors.h"
#include "nlohmann/json.hpp"
#include "runtime/core/nearest_name.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMostChannels = 1 << 14;
constexpr uint64_t kMostBlocks = 64;
constexpr size_t kMostLevels = 8;

// Every argument of the class with its default.
constexpr char kArguments[] = R"({
  "in_channels": 3, "out_channels": 3,
  "down_block_types": ["DownEncoderBlock2D"],
  "up_block_types": ["UpDecoderBlock2D"], "block_out_channels": [64],
  "layers_per_block": 1, "act_fn": "silu", "latent_channels": 4,
  "norm_num_groups": 32, "sample_size": 32, "scaling_factor": 0.18215,
  "shift_factor": null, "latents_mean": null, "latents_std": null,
  "force_upcast": true, "use_quant_conv": true, "use_post_quant_conv": true,
  "mid_block_add_attention": true})";

// The arguments of one config.json; of what it says wrong the first is kept.
class Arguments {
 public:
  Arguments(std::string path, const Json& config)
      : path_(std::move(path)), values_(Json::parse(kArguments)) {
    std::vector<std::string> names;
    for (const auto& [name, value] : values_.items()) names.push_back(name);
    for (const auto& [name, value] : config.items()) {
      // What a library notes of itself: _class_name, _diffusers_version, ...
      if (name.starts_with('_')) continue;
      if (values_.contains(name)) {
        values_[name] = value;
        continue;
      }
      const std::string nearest = NearestName(name, names);
      status_.Update(FailedPrecondition(
          "{}: found field '{}', which no {} has{}", path_, name,
          kAutoencoderClass,
          nearest.empty() ? "" : fmt::format(" (nearest: '{}')", nearest)));
    }
  }

  int64_t Whole(const char* name, uint64_t most) {
    const Json& value = values_[name];
    Expect(name, IsWhole(value, most), fmt::format("1 to {}", most));
    return status_.ok() ? value.get<int64_t>() : 1;
  }
  std::vector<int64_t> Channels(const char* name) {
    const Json& value = values_[name];
    bool good =
        value.is_array() && !value.empty() && value.size() <= kMostLevels;
    for (const Json& element : value) {
      good = good && IsWhole(element, kMostChannels);
    }
    Expect(name, good,
           fmt::format("a list of up to {} numbers of channels, each 1 to {}",
                       kMostLevels, kMostChannels));
    return status_.ok() ? value.get<std::vector<int64_t>>()
                        : std::vector<int64_t>{1};
  }
  bool Flag(const char* name) {
    Expect(name, values_[name].is_boolean(), "true or false");
    return status_.ok() && values_[name].get<bool>();
  }
  double Number(const char* name) {
    Expect(name, values_[name].is_number(), "a number");
    return status_.ok() ? values_[name].get<double>() : 1;
  }
  bool IsNull(const char* name) const { return values_.at(name).is_null(); }
  // One value is supported.
  void ExpectValue(const char* name, const Json& value) {
    Expect(name, values_[name] == value, value.dump());
  }
  void Expect(const char* name, bool good, std::string_view expected) {
    if (good) return;
    status_.Update(FailedPrecondition("{}: {}: found {}, expected {}", path_,
                                      name, values_[name].dump(), expected));
  }
  const absl::Status& status() const { return status_; }

 private:
  static bool IsWhole(const Json& value, uint64_t most) {
    return value.is_number_unsigned() && value.get<uint64_t>() >= 1 &&
           value.get<uint64_t>() <= most;
  }

  std::string path_;
  Json values_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<AutoencoderConfig> ReadAutoencoderConfig(
    const std::string& folder) {
  const std::string path = folder + "/config.json";
  ASSIGN_OR_RETURN(const Json json, ReadJsonObject(path));
  ASSIGN_OR_RETURN(const std::string class_name, ReadClassName(path, json));
  if (class_name != kAutoencoderClass) {
    return FailedPrecondition("{}: _class_name: found \"{}\", expected \"{}\"",
                              path, class_name, kAutoencoderClass);
  }
  Arguments arguments(path, json);
  AutoencoderConfig config;
  config.picture_channels = arguments.Whole("in_channels", 4);
  arguments.ExpectValue("out_channels", config.picture_channels);
  config.latent_channels = arguments.Whole("latent_channels", kMostChannels);
  config.channels = arguments.Channels("block_out_channels");
  const size_t levels = config.channels.size();
  arguments.ExpectValue("down_block_types", Json(levels, "DownEncoderBlock2D"));
  arguments.ExpectValue("up_block_types", Json(levels, "UpDecoderBlock2D"));
  config.blocks = arguments.Whole("layers_per_block", kMostBlocks);
  config.groups = arguments.Whole("norm_num_groups", kMostChannels);
  bool divides = true;
  for (const int64_t channels : config.channels) {
    divides = divides && channels % config.groups == 0;
  }
  arguments.Expect("norm_num_groups", divides,
                   "a divisor of each number of block_out_channels");
  arguments.ExpectValue("act_fn", "silu");
  config.attention = arguments.Flag("mid_block_add_attention");
  config.quant_convolution = arguments.Flag("use_quant_conv");
  config.post_quant_convolution = arguments.Flag("use_post_quant_conv");
  config.scale = arguments.Number("scaling_factor");
  arguments.Expect("scaling_factor", config.scale > 0 && config.scale < 1e6,
                   "more than 0");
  if (!arguments.IsNull("shift_factor")) {
    config.shift = arguments.Number("shift_factor");
  }
  // Means and deviations of each channel, which no pipeline of these classes
  // reads.
  arguments.ExpectValue("latents_mean", nullptr);
  arguments.ExpectValue("latents_std", nullptr);
  RETURN_IF_ERROR(arguments.status());
  return config;
}

}  // namespace trireme
