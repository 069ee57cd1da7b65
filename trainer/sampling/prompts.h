// What samples are drawn for: classes, captions, pictures, and the voxels that
// samples lie at.

#ifndef TRIREME_TRAINER_SAMPLING_PROMPTS_H_
#define TRIREME_TRAINER_SAMPLING_PROMPTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "models/family.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/control.h"

namespace trireme {

// What a sample is drawn for: the class, text, picture and voxels of a sample.
struct Prompt {
  std::string name;
  Sample sample;
};

// What prompts are made of.
struct PromptSource {
  const ModelFamily& family;
  // Null where nothing of samples is needed.
  const Dataset* dataset = nullptr;
  const std::vector<std::string>& class_names;
};

// Whether a model draws at places that samples have.
bool ReadsVoxels(const ModelFamily& family);

// Whether what it is conditioned by is a part of samples: a text, a picture or
// voxels.
bool ReadsSamples(const ModelFamily& family);

// A row a caption; without captions a row a class; of others that read samples
// a row a sample, of the first samples; of others one row. Of models that draw
// at voxels each has those of a sample: captions of the first samples, by
// turns, classes of one of their own, without which they have no row. Errors:
// no readable sample.
absl::StatusOr<std::vector<Prompt>> RowPrompts(
    const PromptSource& source, const std::vector<std::string>& captions,
    int64_t most);

// One prompt a sample, as real ones have them: of models that read samples
// those of samples, of others as many of each class, give or take one. Errors:
// no readable sample.
absl::StatusOr<std::vector<Prompt>> EvaluationPrompts(
    const PromptSource& source, int64_t count);

// What `each` samples a prompt are drawn for, prompt by prompt.
std::vector<Sample> SamplesOf(const std::vector<Prompt>& prompts, int64_t each);

// Rank 0's prompts, on every rank: what each is drawn for, without its name.
// Collective; the same error on all ranks.
absl::StatusOr<std::vector<Sample>> SharePrompts(
    Communicator& everyone, Control& control,
    const absl::StatusOr<std::vector<Sample>>& prompts);

}  // namespace trireme

#endif  // TRIREME_TRAINER_SAMPLING_PROMPTS_H_
