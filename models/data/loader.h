// One rank's part of every batch, decoded ahead by background threads.
//
// Steps count from 1. Element j of step s is the sample at position
// (s−1)·global_batch + j in the order of consumption (sample_order.h); this
// rank reads elements first … first+count−1. What a batch holds is therefore a
// pure function of (data set, seed, step), whatever the grid, the number of
// threads or the step that training resumed at.
//
// A sample that cannot be read is skipped, counted and named in the log; the
// next one in the epoch's order that can be read takes its place. A data set
// without one readable sample is an error.

#ifndef TRIREME_MODELS_DATA_LOADER_H_
#define TRIREME_MODELS_DATA_LOADER_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "models/data/sample_order.h"

namespace trireme {

struct LoaderOptions {
  uint64_t seed = 0;
  // Samples per step over all ranks, and this rank's slice of them.
  int64_t global_batch = 1;
  int64_t first = 0;
  int64_t count = 1;
  // Pictures are scaled and cropped to [channels, resolution, resolution].
  int resolution = 1;
  int channels = 3;
  // Text states per sample: longer sequences are cut, shorter ones padded
  // with zeros. 0 tokens: text is not read.
  int text_tokens = 0;
  int text_width = 0;
  int threads = 1;
  // Batches decoded ahead.
  int prefetch = 2;
};

struct Batch {
  int64_t step = 0;
  std::vector<uint64_t> sample_indices;  // [n], positions in the order
  std::vector<float> pixels;             // [n, c, h, w] in [−1, 1]
  std::vector<int32_t> labels;           // [n]; −1 without class
  std::vector<float> text;               // [n, tokens, width]
  std::vector<int32_t> text_counts;      // [n], tokens that are not padding
};

class DataLoader {
 public:
  // `dataset` outlives the loader.
  DataLoader(const Dataset& dataset, const LoaderOptions& options);
  // Stops the threads after the samples they are reading.
  ~DataLoader();
  DataLoader(const DataLoader&) = delete;
  DataLoader& operator=(const DataLoader&) = delete;

  // The next step's batch; waits for it. One caller at a time.
  absl::StatusOr<Batch> Next();

  // Makes `step` >= 1 the next one; what was decoded ahead is dropped.
  void SeekStep(int64_t step);

  // Distinct samples that this loader found unreadable so far.
  int64_t skipped() const;

 private:
  // A batch being filled: threads claim elements in order and write disjoint
  // parts. A seek leaves the threads that still write with their copy.
  struct Pending {
    Batch batch;
    int64_t claimed = 0;
    int64_t done = 0;
    absl::Status status;
  };

  void Work();
  // The next element to decode, or null: nothing to do.
  std::shared_ptr<Pending> Claim(int64_t& element);
  std::shared_ptr<Pending> NewPending(int64_t step) const;
  absl::Status Fill(Batch& batch, int64_t element);
  absl::Status FillFrom(Sample& sample, Batch& batch, int64_t element) const;
  // True where `index` is already known to be unreadable.
  bool KnownUnreadable(int64_t index) const;
  void RecordUnreadable(int64_t index, const absl::Status& error);

  const Dataset& dataset_;
  const LoaderOptions options_;
  const SampleOrder order_;

  mutable std::mutex mutex_;  // Guards what follows.
  std::condition_variable work_;
  std::condition_variable finished_;
  std::deque<std::shared_ptr<Pending>> pending_;  // Consecutive steps.
  int64_t next_step_ = 1;                         // The first not in pending_.
  std::set<int64_t> unreadable_;
  absl::Status first_error_;
  bool stopping_ = false;

  std::vector<std::thread> threads_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_LOADER_H_
