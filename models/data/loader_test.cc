#include "models/data/loader.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/data/held_out.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Sample i is a gray picture of value i, of class i % 3, with i % 4 text
// tokens of value i; those in `broken` cannot be read.
class NumberedDataset : public Dataset {
 public:
  explicit NumberedDataset(int64_t size, std::set<int64_t> broken = {})
      : size_(size), broken_(std::move(broken)) {}

  int64_t size() const override { return size_; }
  int64_t num_classes() const override { return 3; }
  std::string class_name(int64_t class_id) const override {
    return std::to_string(class_id);
  }
  absl::StatusOr<Sample> ReadParts(int64_t index,
                                   const SampleParts& parts) const override {
    ++reads_;
    Sample sample;
    sample.class_id = static_cast<int>(index % 3);
    if (parts.image) {
      if (broken_.contains(index)) return DataLoss("file{}.png: bad", index);
      sample.image = FilledImage(5, 7, 1, static_cast<uint8_t>(index));
    }
    if (!parts.text) return sample;
    sample.text_count = static_cast<int>(index % 4);
    sample.text_width = 2;
    sample.text_tokens.assign(sample.text_count * 2, index);
    return sample;
  }
  int64_t reads() const { return reads_; }

 private:
  int64_t size_;
  std::set<int64_t> broken_;
  mutable std::atomic<int64_t> reads_ = 0;
};

const FieldSpec kPixels = {.name = kPixelsField, .shape = {1, 2, 2}};
const FieldSpec kLabel = {.name = kLabelField, .dtype = DType::kInt32};
const FieldSpec kCount = {
    .name = kTextCountField, .dtype = DType::kInt32, .typical = 2};
FieldSpec TextOfWidth(int64_t width) {
  return {.name = kTextField,
          .shape = {2, width},
          .job_field = "model.dit.text.width"};
}

LoaderOptions Options(int64_t global_batch, int64_t first, int64_t count) {
  LoaderOptions options;
  options.seed = 5;
  options.global_batch = global_batch;
  options.first = first;
  options.count = count;
  options.fields = {kPixels, kLabel};
  options.threads = 2;
  return options;
}

template <typename T>
const std::vector<T>& Values(const LoadedBatch& batch, size_t field) {
  return std::get<std::vector<T>>(batch.fields[field]);
}

// The index in the data set of sample `i` of a batch of Options, as its
// picture tells.
int64_t IndexOf(const LoadedBatch& batch, size_t i) {
  const std::vector<float>& pixels = Values<float>(batch, 0);
  return static_cast<int64_t>((pixels[i * 4] + 1) * 127.5F + 0.5F);
}

// Position → index of all samples of steps 1 to `steps`.
std::map<uint64_t, int64_t> Consumed(const Dataset& dataset, int ranks,
                                     int64_t global_batch, int steps) {
  std::map<uint64_t, int64_t> consumed;
  const int64_t count = global_batch / ranks;
  for (int rank = 0; rank < ranks; ++rank) {
    DataLoader loader(dataset, Options(global_batch, rank * count, count));
    for (int step = 1; step <= steps; ++step) {
      const absl::StatusOr<LoadedBatch> batch = loader.Next();
      EXPECT_TRUE(batch.ok()) << batch.status();
      for (size_t i = 0; i < batch->positions.size(); ++i) {
        EXPECT_EQ(batch->indices[i], IndexOf(*batch, i));
        consumed[batch->positions[i]] = batch->indices[i];
      }
    }
  }
  return consumed;
}

TEST(LoaderTest, EveryGridConsumesTheSameSamplesEachOnceAnEpoch) {
  const NumberedDataset dataset(60);
  const auto expected = Consumed(dataset, 1, 12, 10);
  ASSERT_EQ(expected.size(), 120u);
  for (int epoch = 0; epoch < 2; ++epoch) {
    std::set<int64_t> seen;
    for (int i = 0; i < 60; ++i) seen.insert(expected.at(epoch * 60 + i));
    EXPECT_EQ(seen.size(), 60u);
  }
  EXPECT_EQ(Consumed(dataset, 2, 12, 10), expected);
  EXPECT_EQ(Consumed(dataset, 4, 12, 10), expected);
  // Another batch size goes through the same order.
  EXPECT_EQ(Consumed(dataset, 1, 24, 5), expected);
}

TEST(LoaderTest, ResumingAtAPositionGivesTheBatchFromThere) {
  const NumberedDataset dataset(100);
  DataLoader loader(dataset, Options(8, 0, 8));
  std::vector<LoadedBatch> batches;
  for (int i = 0; i < 6; ++i) batches.push_back(*loader.Next());
  DataLoader resumed(dataset, Options(8, 0, 8));
  for (const int64_t batch : {3, 1, 5, 5, 0}) {
    resumed.Seek(batch * 8);
    const LoadedBatch read = *resumed.Next();
    EXPECT_EQ(read.positions, batches[batch].positions);
    EXPECT_EQ(read.indices, batches[batch].indices);
    EXPECT_EQ(read.fields, batches[batch].fields);
  }
  EXPECT_EQ(resumed.Next()->positions, batches[1].positions);
}

// A run that goes on with another batch size must not see samples again, nor
// leave some out.
TEST(LoaderTest, AnotherBatchSizeAfterAResumeRepeatsAndLosesNothing) {
  const NumberedDataset dataset(960);
  std::set<int64_t> seen;
  DataLoader before(dataset, Options(32, 0, 32));
  for (int step = 0; step < 10; ++step) {
    const LoadedBatch batch = *before.Next();
    seen.insert(batch.indices.begin(), batch.indices.end());
  }
  ASSERT_EQ(seen.size(), 320u);
  DataLoader after(dataset, Options(64, 0, 64));
  after.Seek(320);
  for (int step = 0; step < 10; ++step) {
    const LoadedBatch batch = *after.Next();
    seen.insert(batch.indices.begin(), batch.indices.end());
  }
  EXPECT_EQ(seen.size(), 960u);
}

TEST(LoaderTest, PadsAndCutsText) {
  const NumberedDataset dataset(40);
  LoaderOptions options = Options(40, 0, 40);
  options.fields = {kPixels, kLabel, kCount, TextOfWidth(2)};
  DataLoader loader(dataset, options);
  const LoadedBatch batch = *loader.Next();
  const std::vector<float>& text = Values<float>(batch, 3);
  ASSERT_EQ(text.size(), 40u * 2 * 2);
  for (int i = 0; i < 40; ++i) {
    const int64_t index = IndexOf(batch, i);
    const int count = std::min<int>(index % 4, 2);
    EXPECT_EQ(Values<int32_t>(batch, 2)[i], count);
    for (int k = 0; k < 4; ++k) {
      EXPECT_EQ(text[i * 4 + k], k < count * 2 ? index : 0);
    }
    EXPECT_EQ(Values<int32_t>(batch, 1)[i], index % 3);
  }
}

TEST(LoaderTest, SkipsUnreadableSamplesAndReplacesThemTheSameOnEveryGrid) {
  const NumberedDataset dataset(60, {3, 17, 18, 19, 59});
  testing::internal::CaptureStderr();
  const auto expected = Consumed(dataset, 1, 12, 5);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("file17.png: bad"), std::string::npos) << log;
  std::set<int64_t> seen;
  for (const auto& [position, index] : expected) seen.insert(index);
  EXPECT_EQ(seen.size(), 55u);
  EXPECT_FALSE(seen.contains(17));
  EXPECT_EQ(Consumed(dataset, 3, 12, 5), expected);
  DataLoader loader(dataset, Options(60, 0, 60));
  ASSERT_TRUE(loader.Next().ok());
  EXPECT_EQ(loader.skipped(), 5);
}

// One rank decodes pictures, another only counts text tokens or reads nothing
// at all: they must still compute on the same samples.
TEST(LoaderTest, RanksThatExchangeUnreadableSamplesReplaceThemAlike) {
  const NumberedDataset dataset(60, {3, 17, 18, 19, 59});
  LoaderOptions options[3] = {Options(60, 0, 60), Options(60, 0, 60),
                              Options(60, 0, 60)};
  options[1].fields = {kCount};
  options[2].fields = {};
  std::vector<std::unique_ptr<DataLoader>> loaders;
  std::vector<LoadedBatch> batches;
  for (const LoaderOptions& of_rank : options) {
    loaders.push_back(std::make_unique<DataLoader>(dataset, of_rank));
    batches.push_back(*loaders.back()->Next());
  }
  EXPECT_NE(batches[0].indices, batches[1].indices);
  EXPECT_EQ(batches[1].indices, batches[2].indices);
  while (true) {
    std::vector<int64_t> found;
    for (const auto& loader : loaders) {
      const std::vector<int64_t> own = loader->TakeUnreadable();
      found.insert(found.end(), own.begin(), own.end());
    }
    if (found.empty()) break;
    for (size_t i = 0; i < loaders.size(); ++i) {
      ASSERT_TRUE(loaders[i]->Replace(found, batches[i]).ok());
    }
  }
  EXPECT_EQ(batches[0].indices, batches[1].indices);
  EXPECT_EQ(batches[0].indices, batches[2].indices);
  for (size_t i = 0; i < 60; ++i) {
    EXPECT_EQ(IndexOf(batches[0], i), batches[0].indices[i]);
    EXPECT_EQ(Values<int32_t>(batches[1], 0)[i],
              std::min<int64_t>(batches[1].indices[i] % 4, 2));
  }
  // What was decoded ahead before, too.
  EXPECT_EQ(loaders[1]->Next()->indices, loaders[0]->Next()->indices);
}

TEST(LoaderTest, NothingReadableIsAnErrorThatNamesAFile) {
  const NumberedDataset dataset(4, {0, 1, 2, 3});
  DataLoader loader(dataset, Options(8, 0, 8));
  const absl::StatusOr<LoadedBatch> batch = loader.Next();
  ASSERT_FALSE(batch.ok());
  EXPECT_NE(MessageOf(batch.status()).find(".png: bad"), std::string::npos)
      << batch.status();
  EXPECT_EQ(loader.skipped(), 4);
}

// No other sample could take the place of one that does not fit the job.
TEST(LoaderTest, TextOfAnotherWidthEndsTheJobAndCostsNoSample) {
  const NumberedDataset dataset(4);
  LoaderOptions options = Options(4, 0, 4);
  options.fields = {TextOfWidth(3)};
  DataLoader loader(dataset, options);
  const std::string message = MessageOf(loader.Next().status());
  EXPECT_NE(message.find("model.dit.text.width: found 3, expected 2"),
            std::string::npos)
      << message;
  EXPECT_EQ(loader.skipped(), 0);
  // Sample 0 has no text and says nothing.
  EXPECT_EQ(MessageOf(CheckFields(dataset, options.fields)), message);
  EXPECT_TRUE(CheckFields(dataset, {{TextOfWidth(2), kPixels}}).ok());
}

TEST(LoaderTest, DecodesAheadButNotWithoutBound) {
  const NumberedDataset dataset(1000);
  {
    DataLoader loader(dataset, Options(10, 0, 10));
    ASSERT_TRUE(loader.Next().ok());
  }
  // The batch taken, and at most the two allowed ahead of each.
  EXPECT_GE(dataset.reads(), 10);
  EXPECT_LE(dataset.reads(), 40);
}

TEST(LoaderTest, ARankWithoutSamplesGetsEmptyBatches) {
  const NumberedDataset dataset(10);
  DataLoader loader(dataset, Options(10, 10, 0));
  const LoadedBatch batch = *loader.Next();
  EXPECT_TRUE(batch.positions.empty());
  EXPECT_EQ(dataset.reads(), 0);
}

// What a run is measured against must not be what it was trained on.
TEST(HeldOutTest, TheSharesAreEvenlySpreadDisjointAndTheWhole) {
  for (const int64_t size : {2, 7, 100}) {
    for (int64_t count = 1; count < size; ++count) {
      std::vector<int64_t> indices;
      std::vector<int64_t> held_out;
      for (const Share share : {Share::kHeldOut, Share::kTraining}) {
        const auto dataset =
            TakeShare(std::make_unique<NumberedDataset>(size), count, share);
        ASSERT_EQ(dataset->size(),
                  share == Share::kHeldOut ? count : size - count);
        EXPECT_EQ(dataset->num_classes(), 3);
        for (int64_t i = 0; i < dataset->size(); ++i) {
          indices.push_back(dataset->Read(i)->image.pixels[0]);
          if (share == Share::kHeldOut) held_out.push_back(indices.back());
        }
      }
      EXPECT_TRUE(std::is_sorted(indices.begin(), indices.begin() + count));
      EXPECT_TRUE(std::is_sorted(indices.begin() + count, indices.end()));
      std::sort(indices.begin(), indices.end());
      for (int64_t i = 0; i < size; ++i) ASSERT_EQ(indices[i], i);
      for (int64_t i = 1; i < count; ++i) {
        EXPECT_LE(held_out[i] - held_out[i - 1], size / count + 1);
      }
    }
  }
}

}  // namespace
}  // namespace trireme
