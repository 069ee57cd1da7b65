#include <algorithm>
#include <span>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/voxel_order.h"
#include "tests/parity/tiny_families.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

// Unlike cells of a grid, of unlike numbers.
void AddVoxels(const TrainingSetup& setup, Device& device, Batch& batch) {
  const int64_t tokens = setup.family->samples().shape.dim(0);
  const int64_t count = batch.size();
  std::vector<int32_t> voxels, counts;
  for (const uint64_t sample : batch.samples) {
    const RandomStream random({.seed = 99, .sample = sample});
    const auto real = static_cast<int64_t>(random.Bits(700000) % (tokens + 1));
    // An odd step takes every cell once.
    const uint64_t first = random.Bits(700001);
    const uint64_t step = random.Bits(700002) | 1;
    for (int64_t i = 0; i < tokens; ++i) {
      const uint64_t cell = first + static_cast<uint64_t>(i) * step;
      for (const int shift : {0, 4, 8}) {
        voxels.push_back(
            i < real ? static_cast<int32_t>((cell >> shift) % kGridSide) : -1);
      }
    }
    counts.push_back(static_cast<int32_t>(real));
  }
  batch.fields[kVoxelsField].values =
      Tensor::FromValues<int32_t>(device, {count, tokens, 3}, voxels);
  batch.fields[kVoxelCountField].values =
      Tensor::FromValues<int32_t>(device, {count}, counts);
}

// Some of a grid's cells in their order, of each sample others.
void AddCells(Device& device, Batch& batch) {
  const int64_t count = batch.size();
  std::vector<int32_t> voxels, counts, kinds;
  for (const uint64_t sample : batch.samples) {
    const RandomStream random({.seed = 99, .sample = sample});
    // Of cubes of 2³ cells, most of which are there.
    const double share = 0.02 + 0.05 * random.Uniform(700000);
    std::vector<std::pair<int64_t, std::array<int32_t, 3>>> cells;
    for (int32_t cell = 0; cell < kVoxelSide * kVoxelSide * kVoxelSide;
         ++cell) {
      const std::array<int32_t, 3> at = {cell % kVoxelSide,
                                         cell / kVoxelSide % kVoxelSide,
                                         cell / (kVoxelSide * kVoxelSide)};
      const int32_t cube =
          (at[2] / 2 * kVoxelSide + at[1] / 2) * kVoxelSide + at[0] / 2;
      if (random.Uniform(700001 + cube) > share ||
          random.Uniform(710001 + cell) > 0.6) {
        continue;
      }
      cells.emplace_back(VoxelRank(at[0], at[1], at[2], kVoxelSide), at);
    }
    std::sort(cells.begin(), cells.end());
    cells.resize(std::min<size_t>(cells.size(), kMostVoxels));
    for (const auto& [rank, at] : cells) {
      voxels.insert(voxels.end(), at.begin(), at.end());
    }
    voxels.resize(voxels.size() + 3 * (kMostVoxels - cells.size()), -1);
    counts.push_back(static_cast<int32_t>(cells.size()));
    for (size_t i = 0; i < cells.size(); ++i) {
      kinds.push_back(static_cast<int32_t>(random.Bits(800000 + i) % 3));
    }
    kinds.resize(kMostVoxels * counts.size(), -1);
  }
  batch.fields[kVoxelsField].values =
      Tensor::FromValues<int32_t>(device, {count, kMostVoxels, 3}, voxels);
  batch.fields[kVoxelKindsField].values =
      Tensor::FromValues<int32_t>(device, {count, kMostVoxels}, kinds);
  batch.fields[kVoxelCountField].values =
      Tensor::FromValues<int32_t>(device, {count}, counts);
}

// Sequences of unlike lengths, so that means over a replica's tokens are others
// than those over all.
void AddSequences(const TrainingSetup& setup, Device& device, Batch& batch) {
  const FieldSpec spec = setup.family->samples();
  const TokenGrammar& grammar = *setup.family->grammar();
  const int64_t tokens = spec.shape.dim(0), count = batch.size();
  std::vector<int32_t> sequences, next_tokens, lengths;
  for (const uint64_t sample : batch.samples) {
    const RandomStream random({.seed = 99, .sample = sample});
    const auto length = static_cast<int64_t>(1 + random.Bits(600000) % tokens);
    for (int64_t i = 0; i < tokens; ++i) {
      const auto token =
          static_cast<int32_t>(random.Bits(i) % grammar.vocabulary());
      sequences.push_back(i < length ? token : grammar.end());
      next_tokens.push_back(i < length ? token : -1);
    }
    lengths.push_back(static_cast<int32_t>(length));
  }
  batch.fields[kSequenceField].values =
      Tensor::FromValues<int32_t>(device, {count, tokens}, sequences);
  batch.fields[kNextTokensField].values =
      Tensor::FromValues<int32_t>(device, {count, tokens}, next_tokens);
  batch.fields[kSequenceLengthField].values =
      Tensor::FromValues<int32_t>(device, {count}, lengths);
}

}  // namespace

BatchSource RandomBatches(const TrainingSetup& setup) {
  return [setup](Device& device, int64_t step, int64_t first,
                 int64_t count) -> absl::StatusOr<Batch> {
    Batch batch;
    batch.step = step;
    FieldSpec sample_field = setup.family->samples();
    if (!setup.buckets.empty()) {
      // The smaller ones first: what they leave behind is there when the
      // largest comes.
      const auto buckets = static_cast<int64_t>(setup.buckets.size());
      batch.bucket = static_cast<int32_t>(buckets - 1 - (step - 1) % buckets);
      sample_field = setup.buckets[batch.bucket].family->samples();
    }
    const int64_t elements = sample_field.shape.num_elements();
    std::vector<float> pixels(count * elements);
    std::vector<int32_t> labels(count);
    std::vector<FieldSpec> text_fields;
    uint64_t most_text = 0;
    std::optional<FieldSpec> picture;
    int32_t picture_tokens = 0;
    for (const FieldSpec& spec : AllFields(*setup.family)) {
      if (spec.name == kTextField || spec.num_layers > 0) {
        text_fields.push_back(spec);
      }
      if (spec.name == kPixelsField && spec.name != sample_field.name) {
        picture = spec;
      }
      if (spec.name == kPictureCountField) {
        picture_tokens = static_cast<int32_t>(spec.typical);
      }
      if (spec.name == kTextCountField) {
        most_text = static_cast<uint64_t>(spec.typical);
      }
    }
    std::vector<int32_t> text_counts(count);
    std::vector<float> pooled(count * kPooledWidth);
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t sample = (step - 1) * setup.global_batch + first + i;
      batch.samples.push_back(sample);
      const RandomStream random({.seed = 99, .sample = sample});
      random.FillNormal(
          0, std::span<float>(pixels.data() + i * elements, elements));
      random.FillNormal(
          300000,
          std::span<float>(pooled.data() + i * kPooledWidth, kPooledWidth));
      const int64_t classes = setup.family->classifies()
                                  ? kSwinClasses
                                  : setup.family->num_classes();
      if (classes > 0) {
        labels[i] = static_cast<int32_t>(random.Bits(100000) % classes);
      }
      text_counts[i] =
          static_cast<int32_t>(random.Bits(200000) % (most_text + 1));
    }
    if (setup.family->grammar() != nullptr) {
      AddSequences(setup, device, batch);
    } else {
      batch.fields[sample_field.name].values = Tensor::FromValues<float>(
          device, sample_field.ShapeOf(count), pixels);
    }
    if (!sample_field.counted_by.empty()) AddVoxels(setup, device, batch);
    batch.fields[kLabelField].values =
        Tensor::FromValues<int32_t>(device, {count}, labels);
    for (const FieldSpec& spec : AllFields(*setup.family)) {
      if (setup.family->reconstructs() && spec.name == kVoxelsField) {
        AddCells(device, batch);
      }
      if (spec.name != kQueriesField) continue;
      const int64_t of_sample = spec.shape.num_elements();
      std::vector<float> queries(count * of_sample);
      for (int64_t i = 0; i < count; ++i) {
        RandomStream({.seed = 99, .sample = batch.samples[i]})
            .FillNormal(500000, std::span<float>(queries.data() + i * of_sample,
                                                 of_sample));
      }
      batch.fields[kQueriesField].values =
          Tensor::FromValues<float>(device, spec.ShapeOf(count), queries);
    }
    if (picture.has_value()) {
      const int64_t of_sample = picture->shape.num_elements();
      std::vector<float> pictures(count * of_sample);
      for (int64_t i = 0; i < count; ++i) {
        RandomStream({.seed = 99, .sample = batch.samples[i]})
            .FillNormal(
                400000,
                std::span<float>(pictures.data() + i * of_sample, of_sample));
      }
      batch.fields[kPixelsField].values =
          Tensor::FromValues<float>(device, picture->ShapeOf(count), pictures);
      batch.fields[kPictureCountField].values = Tensor::FromValues<int32_t>(
          device, {count}, std::vector<int32_t>(count, picture_tokens));
    }
    if (most_text > 0) {
      for (const FieldSpec& spec : text_fields) {
        std::vector<float> states(spec.ShapeOf(count).num_elements());
        const int64_t of_sample = spec.shape.num_elements();
        for (int64_t i = 0; i < count; ++i) {
          const RandomStream random({.seed = 99, .sample = batch.samples[i]});
          random.FillNormal(
              elements + (spec.num_layers > 0 ? 1000 * (spec.layer + 1) : 0),
              std::span<float>(states.data() + i * of_sample, of_sample));
        }
        batch.fields[spec.name].values =
            Tensor::FromValues<float>(device, spec.ShapeOf(count), states);
      }
      batch.fields[kTextCountField].values =
          Tensor::FromValues<int32_t>(device, {count}, text_counts);
      batch.fields[kPooledTextField].values =
          Tensor::FromValues<float>(device, {count, kPooledWidth}, pooled);
    }
    return batch;
  };
}

}  // namespace trireme
