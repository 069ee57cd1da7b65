#include "trainer/sampling/prompts.h"

#include <algorithm>
#include <functional>
#include <string_view>
#include <utility>

#include "models/data/sample_order.h"
#include "nlohmann/json.hpp"
#include "runtime/comm/patience.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

bool Reads(const ModelFamily& family, std::string_view field) {
  const std::vector<FieldSpec> fields = AllFields(family);
  return std::any_of(
      fields.begin(), fields.end(),
      [field](const FieldSpec& spec) { return spec.name == field; });
}

bool KnowsClass(const Sample& sample, const ModelFamily& family) {
  return family.num_classes() == 0 ||
         (sample.class_id >= 0 && sample.class_id < family.num_classes());
}

// What prompts are made of.
SampleParts PromptParts(const ModelFamily& family) {
  return {.image = Reads(family, kPictureCountField),
          .text = true,
          .caption = true,
          .text_layers = true,
          .voxels = ReadsVoxels(family)};
}

// The first `most` classes, each with the text of a sample of its own.
std::vector<Prompt> ClassPrompts(const PromptSource& source, int64_t most) {
  const ModelFamily& family = source.family;
  std::vector<Prompt> prompts(std::min(most, family.num_classes()));
  for (size_t i = 0; i < prompts.size(); ++i) {
    prompts[i].name = source.class_names[i];
    prompts[i].sample.class_id = static_cast<int>(i);
  }
  // A class without a readable sample is drawn without text.
  if (!ReadsSamples(family)) return prompts;
  const Dataset& dataset = *source.dataset;
  const SampleParts parts = PromptParts(family);
  // In an order in which each class comes soon.
  const SampleOrder order(/*seed=*/0, dataset.size());
  std::vector<bool> found(prompts.size(), false);
  size_t missing = prompts.size();
  for (int64_t i = 0; i < dataset.size() && missing > 0; ++i) {
    absl::StatusOr<Sample> sample = dataset.ReadParts(order.Index(i), parts);
    if (!sample.ok() || !KnowsClass(*sample, family)) continue;
    const auto label = static_cast<size_t>(sample->class_id);
    if (label >= prompts.size() || found[label]) continue;
    prompts[label].sample = *std::move(sample);
    found[label] = true;
    --missing;
  }
  if (ReadsVoxels(family)) {
    std::erase_if(prompts, [](const Prompt& prompt) {
      return prompt.sample.voxels.empty();
    });
  }
  return prompts;
}

// Captions, and classes if there are such, of up to `most` readable samples,
// from the index `at(0)`, `at(1)`, ...
absl::StatusOr<std::vector<Prompt>> SamplePrompts(
    const PromptSource& source, int64_t most,
    const std::function<int64_t(int64_t)>& at) {
  const int64_t size = source.dataset->size();
  const SampleParts parts = PromptParts(source.family);
  std::vector<Prompt> prompts;
  for (int64_t i = 0; i < size && static_cast<int64_t>(prompts.size()) < most;
       ++i) {
    absl::StatusOr<Sample> sample = source.dataset->ReadParts(at(i), parts);
    if (!sample.ok() || !KnowsClass(*sample, source.family)) continue;
    prompts.push_back({sample->caption, *std::move(sample)});
  }
  if (prompts.empty()) {
    return NotFound("found no readable sample among {} to draw for", size);
  }
  return prompts;
}

// A row a caption that was asked for, which the model reads.
std::vector<Prompt> CaptionPrompts(const std::vector<std::string>& captions) {
  std::vector<Prompt> prompts;
  for (const std::string& caption : captions) {
    Prompt& prompt = prompts.emplace_back();
    prompt.name = prompt.sample.caption = caption;
  }
  return prompts;
}

}  // namespace

bool ReadsVoxels(const ModelFamily& family) {
  return Reads(family, kVoxelsField);
}

bool ReadsSamples(const ModelFamily& family) {
  return Reads(family, kTextField) || Reads(family, kPictureCountField) ||
         ReadsVoxels(family);
}

absl::StatusOr<std::vector<Prompt>> RowPrompts(
    const PromptSource& source, const std::vector<std::string>& captions,
    int64_t most) {
  const ModelFamily& family = source.family;
  const auto in_order = [](int64_t i) { return i; };
  if (!captions.empty()) {
    std::vector<Prompt> prompts = CaptionPrompts(captions);
    if (!ReadsVoxels(family)) return prompts;
    ASSIGN_OR_RETURN(
        const std::vector<Prompt> samples,
        SamplePrompts(source, static_cast<int64_t>(captions.size()), in_order));
    for (size_t i = 0; i < prompts.size(); ++i) {
      prompts[i].sample.voxels = samples[i % samples.size()].sample.voxels;
    }
    return prompts;
  }
  if (family.num_classes() > 0) {
    std::vector<Prompt> prompts = ClassPrompts(source, most);
    if (!prompts.empty()) return prompts;
    return NotFound("found no readable sample of the {} classes to draw for",
                    family.num_classes());
  }
  if (!ReadsSamples(family)) return std::vector<Prompt>(1);
  return SamplePrompts(source, most, in_order);
}

absl::StatusOr<std::vector<Prompt>> EvaluationPrompts(
    const PromptSource& source, int64_t count) {
  const ModelFamily& family = source.family;
  std::vector<Prompt> prompts;
  if (ReadsSamples(family)) {
    const SampleOrder order(/*seed=*/0, source.dataset->size());
    ASSIGN_OR_RETURN(prompts, SamplePrompts(source, count, [&](int64_t i) {
                       return order.Index(i);
                     }));
    // Those of a small data set come again.
    const size_t own = prompts.size();
    while (static_cast<int64_t>(prompts.size()) < count) {
      prompts.push_back(prompts[prompts.size() - own]);
    }
    return prompts;
  }
  prompts.resize(count);
  for (int64_t i = 0; i < count && family.num_classes() > 0; ++i) {
    prompts[i].sample.class_id = static_cast<int>(i % family.num_classes());
  }
  return prompts;
}

std::vector<Sample> SamplesOf(const std::vector<Prompt>& prompts,
                              int64_t each) {
  std::vector<Sample> samples;
  for (const Prompt& prompt : prompts) {
    samples.insert(samples.end(), each, prompt.sample);
  }
  return samples;
}

absl::StatusOr<std::vector<Sample>> SharePrompts(
    Communicator& everyone, Control& control,
    const absl::StatusOr<std::vector<Sample>>& prompts) {
  // Rank 0 reads samples until it has a prompt for each row.
  AwaitAllPatiently(everyone, "choosing prompts");
  RETURN_IF_ERROR(control.Agree(prompts.status(), "choosing prompts"));
  std::string packed;
  if (control.rank() == 0) {
    Json list = Json::array();
    for (const Sample& sample : *prompts) {
      list.push_back({sample.class_id, sample.caption, sample.text_tokens,
                      sample.text_count, sample.text_width, sample.text_pooled,
                      sample.text_layers, sample.text_layer_count,
                      sample.text_layer_width, sample.image.width,
                      sample.image.height, sample.image.channels,
                      Json::binary(sample.image.pixels), sample.voxels});
    }
    const std::vector<uint8_t> bytes = Json::to_cbor(list);
    packed.assign(bytes.begin(), bytes.end());
  }
  control.Broadcast(packed, "prompts");
  if (control.rank() == 0) return *prompts;
  std::vector<Sample> samples;
  for (const Json& entry : Json::from_cbor(packed)) {
    Sample& sample = samples.emplace_back();
    sample.class_id = entry[0].get<int>();
    sample.caption = entry[1].get<std::string>();
    sample.text_tokens = entry[2].get<std::vector<float>>();
    sample.text_count = entry[3].get<int>();
    sample.text_width = entry[4].get<int>();
    sample.text_pooled = entry[5].get<std::vector<float>>();
    sample.text_layers = entry[6].get<std::vector<float>>();
    sample.text_layer_count = entry[7].get<int>();
    sample.text_layer_width = entry[8].get<int>();
    sample.image = {.width = entry[9].get<int>(),
                    .height = entry[10].get<int>(),
                    .channels = entry[11].get<int>(),
                    .pixels = entry[12].get_binary()};
    sample.voxels = entry[13].get<std::vector<int32_t>>();
  }
  return samples;
}

}  // namespace trireme
