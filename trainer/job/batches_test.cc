#include "trainer/job/batches.h"

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

// Sample i is a gray picture of value i and has i text tokens. Of the pictures
// some cannot be read; how many were decoded is counted.
class Pictures : public Dataset {
 public:
  Pictures(int64_t size, std::set<int64_t> broken)
      : size_(size), broken_(std::move(broken)) {}
  int64_t size() const override { return size_; }
  int64_t num_classes() const override { return 0; }
  std::string class_name(int64_t) const override { return ""; }
  absl::StatusOr<Sample> ReadParts(int64_t index,
                                   const SampleParts& parts) const override {
    Sample sample;
    sample.key = std::to_string(index);
    if (parts.image) {
      ++decoded_;
      if (broken_.contains(index)) return DataLoss("{}: bad", index);
      sample.image = FilledImage(2, 2, 1, static_cast<uint8_t>(index));
    }
    if (parts.text) {
      sample.text_count = static_cast<int>(index);
      sample.text_width = 1;
      sample.text_tokens.assign(index, 1.0F);
    }
    return sample;
  }
  int64_t decoded() const { return decoded_; }

 private:
  int64_t size_;
  std::set<int64_t> broken_;
  mutable std::atomic<int64_t> decoded_ = 0;
};

const FieldSpec kPixels = {.name = kPixelsField, .shape = {1, 2, 2}};
const FieldSpec kCount = {
    .name = kTextCountField, .dtype = DType::kInt32, .typical = 100};

// The first stage of a pipeline reads pictures and text, a middle one the
// number of text tokens, another nothing.
TEST(BatchReaderTest, ReadsARanksFieldsAloneAndTheSameSamplesOnEveryRank) {
  const std::vector<FieldSpec> fields[3] = {{kPixels, kCount}, {kCount}, {}};
  std::vector<int64_t> consumed[3];
  RunThreadRanks(3, [&](CommunicatorFactory& factory, int rank) {
    // On rank 0 alone some pictures are damaged.
    const Pictures dataset(
        30, rank == 0 ? std::set<int64_t>{2, 5, 6, 29} : std::set<int64_t>());
    CpuDevice device(int64_t{1} << 28);
    const int ranks[] = {0, 1, 2};
    const auto world = factory.Create(ranks, "world");
    Control control(*world);
    BatchReader reader(
        dataset,
        {.global_batch = 12, .first = 0, .count = 12, .fields = fields[rank]},
        ExchangeOver(control));
    for (int64_t step = 1; step <= 5; ++step) {
      const int64_t before = device.Statistics().current_bytes;
      const auto batch = reader.Read(device, step, 12 * (step - 1));
      CHECK_OK(batch.status());
      EXPECT_EQ(batch->step, step);
      EXPECT_EQ(batch->samples[1], 12 * (step - 1) + 1);
      EXPECT_EQ(batch->fields.size(), fields[rank].size());
      // As much as the dry step books for the same fields.
      CpuDevice dry(int64_t{1} << 28);
      const Batch predicted = EmptyBatch(dry, fields[rank], 12);
      EXPECT_EQ(device.Statistics().current_bytes - before,
                dry.Statistics().current_bytes);
      ASSERT_EQ(reader.consumed().size(), 12u);
      for (int i = 0; i < 12 && batch->Has(kTextCountField); ++i) {
        EXPECT_EQ((*batch)[kTextCountField].ToVector<int32_t>()[i],
                  reader.consumed()[i]);
      }
      consumed[rank].insert(consumed[rank].end(), reader.consumed().begin(),
                            reader.consumed().end());
    }
    EXPECT_EQ(dataset.decoded() > 0, rank == 0);
    EXPECT_EQ(reader.skipped(), 4);
  });
  EXPECT_EQ(consumed[0], consumed[1]);
  EXPECT_EQ(consumed[0], consumed[2]);
  EXPECT_EQ(std::set<int64_t>(consumed[0].begin(), consumed[0].end()).size(),
            26u);
}

// 100 steps of 64 samples, then a resume with 128 a step.
TEST(BatchReaderTest, PositionsFollowTheSamplesConsumed) {
  const Pictures dataset(100, {});
  CpuDevice device(int64_t{1} << 28);
  BatchReader reader(dataset, {.global_batch = 128, .count = 128});
  const auto first = reader.Read(device, 101, 6400);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(first->samples.front(), 6400u);
  EXPECT_EQ(reader.Read(device, 102, 6528)->samples.front(), 6528u);
}

}  // namespace
}  // namespace trireme
