// The job's data set, and this rank's batches of it as tensors.

#ifndef TRIREME_TRAINER_BATCHES_H_
#define TRIREME_TRAINER_BATCHES_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "models/data/loader.h"
#include "models/objective/rectified_flow.h"
#include "trainer/job.pb.h"
#include "trainer/training_setup.h"

namespace trireme {

// What the job trains on. Errors name the field of the job and the path:
// nothing there, nothing readable, another format.
absl::StatusOr<std::unique_ptr<Dataset>> OpenDataset(const Data& data);

// What the job does not train on (Data.held_out); null if there is no such.
absl::StatusOr<std::unique_ptr<Dataset>> OpenHeldOut(const Data& data);

class BatchReader {
 public:
  // Samples [first, first + count) of every global batch. Ranks that need
  // neither pixels nor text read nothing. The data set outlives the reader.
  BatchReader(const Dataset& dataset, const Job& job,
              const TrainingSetup& setup, int64_t first, int64_t count,
              bool reads_pixels, bool reads_text);

  // The batch of step `step` (from 1), on `device`. Steps in order are
  // decoded ahead in the background.
  absl::StatusOr<ImageBatch> Read(Device& device, int64_t step);

  // Samples that could not be decoded so far.
  int64_t skipped() const;

 private:
  TrainingSetup setup_;
  int64_t first_;
  int64_t count_;
  bool reads_pixels_;
  std::unique_ptr<DataLoader> loader_;
  int64_t next_step_ = 1;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_BATCHES_H_
