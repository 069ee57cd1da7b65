// One rank's part of every batch, decoded ahead by background threads.
//
// Samples have positions in the order of consumption (sample_order.h). A batch
// of the job takes the next `global_batch` of them; this rank reads those
// first … first+count−1 of it. What a batch holds is a pure function of (data
// set, seed, position), whatever the grid, the number of threads, the batch
// size or where training resumed.
//
// Of a data set in buckets a batch of the job is of one bucket, read at its
// size (bucket_order.h), and which one depends on how many samples the batches
// before it had, too.
//
// In the place of a sample that cannot be read comes the next in the epoch's
// order (its bucket's) that can: a pure function of the position and the set of
// unreadable samples. Ranks that read other parts of the same samples find
// other ones unreadable; they exchange what they found (TakeUnreadable,
// Replace) before they use a batch. Unreadable samples are counted and named in
// the log; a data set without one readable sample is an error.

#ifndef TRIREME_MODELS_DATA_LOADER_H_
#define TRIREME_MODELS_DATA_LOADER_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "models/data/bucket_order.h"
#include "models/data/bucket_turns.h"
#include "models/data/dataset.h"
#include "models/data/encoder_drops.h"
#include "models/data/field_readers.h"
#include "models/data/sample_order.h"

namespace trireme {

struct LoaderOptions {
  uint64_t seed = 0;
  // Samples per step over all ranks, and this rank's slice of them.
  int64_t global_batch = 1;
  int64_t first = 0;
  int64_t count = 1;
  // What is read of each sample. None: no sample is opened, only told which
  // ones they are.
  std::vector<FieldSpec> fields;
  // What is left out of them at random.
  std::vector<DroppedEncoder> drops;
  // Of a data set in buckets: batches of the job so far, the last span's of
  // global_batch samples. Empty: all are.
  std::vector<BatchSpan> spans;
  // Of a data set in buckets: not empty, it is read in these turns, and then
  // again from the first on, each a batch at its samples' positions.
  std::vector<BucketTurn> turns;
  int threads = 1;
  // Batches decoded ahead.
  int prefetch = 2;
};

struct LoadedBatch {
  std::vector<uint64_t> positions;  // [count]
  std::vector<int64_t> indices;     // [count], in the data set: those read
  int32_t bucket = 0;
  uint64_t first_place = 0;         // of the job's batch, in its bucket's order
  std::vector<FieldValues> fields;  // in the order of LoaderOptions::fields
};

class DataLoader {
 public:
  // `dataset` outlives the loader.
  DataLoader(const Dataset& dataset, const LoaderOptions& options);
  // Stops the threads after the samples they are reading.
  ~DataLoader();
  DataLoader(const DataLoader&) = delete;
  DataLoader& operator=(const DataLoader&) = delete;

  // The next batch; waits for it. One caller at a time. Errors: nothing can be
  // read, a sample that does not fit the fields.
  absl::StatusOr<LoadedBatch> Next();

  // Makes `position` the first of the next batch of the job; what was decoded
  // ahead is dropped. Of a data set in buckets whole batches behind the start
  // of the last span. Of turns it is global_batch times the turn's number.
  void Seek(uint64_t position);

  // The samples that this loader found unreadable since the last call, by
  // index.
  std::vector<int64_t> TakeUnreadable();
  // Counts samples as unreadable from now on, also in what is decoded ahead,
  // and reads others in their place in `batch`. That may find new ones.
  absl::Status Replace(std::span<const int64_t> unreadable, LoadedBatch& batch);

  // The options' fields as a batch of the bucket has them.
  const std::vector<FieldSpec>& fields(int32_t bucket) const {
    return fields_[bucket];
  }

  // Distinct samples that are known to be unreadable so far.
  int64_t skipped() const;

 private:
  // A batch being filled: threads claim elements in order and write disjoint
  // parts. A seek leaves the threads that still write with their copy.
  struct Pending {
    LoadedBatch batch;
    int64_t claimed = 0;
    int64_t done = 0;
    absl::Status status;
  };

  void Work();
  // The next element to decode, or null: nothing to do.
  std::shared_ptr<Pending> Claim(int64_t& element);
  // The batch from next_position_ on, which moves to the one after.
  std::shared_ptr<Pending> NewPending();
  // Of a data set in buckets: gives the batch from `position` on its bucket and
  // places, and returns the position of its first sample.
  uint64_t TakeBucket(uint64_t position, LoadedBatch& batch) const;
  absl::Status Fill(LoadedBatch& batch, int64_t element);
  // The sample of the element, or what is tried in its place, and how often
  // that may be.
  int64_t IndexOf(const LoadedBatch& batch, int64_t element,
                  int64_t attempt) const;
  int64_t Attempts(const LoadedBatch& batch) const;
  // Reads sample `index` into the element. `job_error`: of another kind than
  // damage of this sample.
  absl::Status FillFrom(int64_t index, LoadedBatch& batch, int64_t element,
                        absl::Status& job_error) const;
  // Reads others in the place of samples that are known to be unreadable.
  absl::Status Refresh(LoadedBatch& batch);
  // True where `index` is already known to be unreadable.
  bool KnownUnreadable(int64_t index) const;
  void RecordUnreadable(int64_t index, const absl::Status& error);

  const Dataset& dataset_;
  const LoaderOptions options_;
  const SampleParts parts_;
  const SampleOrder order_;
  std::optional<BucketOrder> bucket_order_;     // of a data set in buckets
  std::vector<std::vector<FieldSpec>> fields_;  // by bucket

  mutable std::mutex mutex_;  // Guards what follows.
  std::condition_variable work_;
  std::condition_variable finished_;
  std::deque<std::shared_ptr<Pending>> pending_;  // Consecutive batches.
  uint64_t next_position_ = 0;                    // The first not in pending_.
  std::set<int64_t> unreadable_;
  std::vector<int64_t> found_;  // Of those, what TakeUnreadable gives.
  absl::Status first_error_;
  bool stopping_ = false;

  std::vector<std::thread> threads_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_LOADER_H_
