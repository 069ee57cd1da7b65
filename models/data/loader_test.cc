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
  absl::StatusOr<Sample> Read(int64_t index) const override {
    ++reads_;
    if (broken_.contains(index)) return DataLoss("file{}.png: bad", index);
    Sample sample;
    sample.image = FilledImage(5, 7, 1, static_cast<uint8_t>(index));
    sample.class_id = static_cast<int>(index % 3);
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

LoaderOptions Options(int64_t global_batch, int64_t first, int64_t count) {
  LoaderOptions options;
  options.seed = 5;
  options.global_batch = global_batch;
  options.first = first;
  options.count = count;
  options.resolution = 2;
  options.channels = 1;
  options.threads = 2;
  return options;
}

// The index in the data set of sample `i` of a batch of Options.
int64_t IndexOf(const Batch& batch, size_t i) {
  return static_cast<int64_t>((batch.pixels[i * 4] + 1) * 127.5F + 0.5F);
}

// Position → index of all samples of steps 1 to `steps`.
std::map<uint64_t, int64_t> Consumed(const Dataset& dataset, int ranks,
                                     int64_t global_batch, int steps) {
  std::map<uint64_t, int64_t> consumed;
  const int64_t count = global_batch / ranks;
  for (int rank = 0; rank < ranks; ++rank) {
    DataLoader loader(dataset, Options(global_batch, rank * count, count));
    for (int step = 1; step <= steps; ++step) {
      const absl::StatusOr<Batch> batch = loader.Next();
      EXPECT_TRUE(batch.ok()) << batch.status();
      EXPECT_EQ(batch->step, step);
      for (size_t i = 0; i < batch->sample_indices.size(); ++i) {
        consumed[batch->sample_indices[i]] = IndexOf(*batch, i);
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

TEST(LoaderTest, ResumingAtAStepGivesThatStepsBatch) {
  const NumberedDataset dataset(100);
  DataLoader loader(dataset, Options(8, 0, 8));
  std::vector<Batch> batches;
  for (int i = 0; i < 6; ++i) batches.push_back(*loader.Next());
  DataLoader resumed(dataset, Options(8, 0, 8));
  for (const int64_t step : {4, 2, 6, 6, 1}) {
    resumed.SeekStep(step);
    const Batch batch = *resumed.Next();
    EXPECT_EQ(batch.step, step);
    EXPECT_EQ(batch.sample_indices, batches[step - 1].sample_indices);
    EXPECT_EQ(batch.pixels, batches[step - 1].pixels);
    EXPECT_EQ(batch.labels, batches[step - 1].labels);
  }
  EXPECT_EQ(resumed.Next()->step, 2);
}

TEST(LoaderTest, PadsAndCutsText) {
  const NumberedDataset dataset(40);
  LoaderOptions options = Options(40, 0, 40);
  options.text_tokens = 2;
  options.text_width = 2;
  DataLoader loader(dataset, options);
  const Batch batch = *loader.Next();
  ASSERT_EQ(batch.text.size(), 40u * 2 * 2);
  for (int i = 0; i < 40; ++i) {
    const int64_t index = IndexOf(batch, i);
    const int count = std::min<int>(index % 4, 2);
    EXPECT_EQ(batch.text_counts[i], count);
    for (int k = 0; k < 4; ++k) {
      EXPECT_EQ(batch.text[i * 4 + k], k < count * 2 ? index : 0);
    }
    EXPECT_EQ(batch.labels[i], index % 3);
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

TEST(LoaderTest, NothingReadableIsAnErrorThatNamesAFile) {
  const NumberedDataset dataset(4, {0, 1, 2, 3});
  DataLoader loader(dataset, Options(8, 0, 8));
  const absl::StatusOr<Batch> batch = loader.Next();
  ASSERT_FALSE(batch.ok());
  EXPECT_NE(MessageOf(batch.status()).find(".png: bad"), std::string::npos)
      << batch.status();
  EXPECT_EQ(loader.skipped(), 4);
}

TEST(LoaderTest, TextOfAnotherWidthMakesSamplesUnreadable) {
  const NumberedDataset dataset(4);
  LoaderOptions options = Options(4, 0, 4);
  options.text_tokens = 2;
  options.text_width = 3;
  DataLoader loader(dataset, options);
  // Sample 0 has no text at all and stays.
  ASSERT_TRUE(loader.Next().ok());
  EXPECT_EQ(loader.skipped(), 3);
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
  const Batch batch = *loader.Next();
  EXPECT_EQ(batch.step, 1);
  EXPECT_TRUE(batch.sample_indices.empty());
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
