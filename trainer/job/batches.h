// The job's data set, and this rank's batches of it as tensors.

#ifndef TRIREME_TRAINER_JOB_BATCHES_H_
#define TRIREME_TRAINER_JOB_BATCHES_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "models/batch.h"
#include "models/data/dataset.h"
#include "models/data/loader.h"
#include "runtime/comm/control.h"
#include "trainer/job/job.pb.h"

namespace trireme {

// What the job trains on, in buckets where it has them (bucketed_dataset.h).
// Errors name the field of the job and the path:
// nothing there, nothing readable, another format.
absl::StatusOr<std::unique_ptr<Dataset>> OpenDataset(const Data& data);

// What the job does not train on (Data.held_out), not in buckets; null if there
// is no such.
absl::StatusOr<std::unique_ptr<Dataset>> OpenHeldOut(const Data& data);

// What the job's validation measures, in buckets where the job has them. Fills
// validation.samples in. Errors: nothing is held out, or less than is to be
// measured; those of PutIntoBuckets.
absl::StatusOr<std::unique_ptr<Dataset>> OpenValidationSamples(Job& job);

// Turns the samples that this rank found unreadable, by index, into those that
// any rank has found. Collective over the ranks.
using UnreadableExchange =
    std::function<std::vector<int64_t>(const std::vector<int64_t>& own)>;

// Over the ranks of `control`, which outlives the result.
UnreadableExchange ExchangeOver(Control& control);

// This rank's part of every batch, as tensors.
class BatchReader {
 public:
  // The data set outlives the reader. With an exchange a sample that one rank
  // cannot read is replaced alike on all.
  BatchReader(const Dataset& dataset, const LoaderOptions& options,
              UnreadableExchange exchange = nullptr);

  // The batch of step `step` (from 1) on `device`: of the samples that the job
  // consumes from `position` on (DataLoader::Seek). Batches in order are
  // decoded ahead in the background. Collective where there is an exchange.
  // Errors: samples that cannot be read.
  absl::StatusOr<Batch> Read(Device& device, int64_t step, uint64_t position);

  // The next batch begins at position 0: decodes it ahead.
  void Rewind();

  // The samples of the last batch by their index in the data set, with those
  // that took the place of unreadable ones: the same on all ranks that compute
  // on the same samples, whatever they read of them.
  std::span<const int64_t> consumed() const { return consumed_; }

  // Samples that could not be decoded so far.
  int64_t skipped() const { return loader_.skipped(); }

 private:
  LoaderOptions options_;
  UnreadableExchange exchange_;
  DataLoader loader_;
  uint64_t next_position_ = 0;
  std::vector<int64_t> consumed_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_JOB_BATCHES_H_
