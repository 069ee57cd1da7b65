#include "models/data/loader.h"

#include <algorithm>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Unreadable samples that are named one by one; later ones are only counted.
constexpr size_t kNamed = 5;

bool IsPowerOfTen(size_t n) {
  while (n >= 10 && n % 10 == 0) n /= 10;
  return n == 1;
}

}  // namespace

DataLoader::DataLoader(const Dataset& dataset, const LoaderOptions& options)
    : dataset_(dataset),
      options_(options),
      parts_(PartsOf(options.fields)),
      order_(options.seed, dataset.size()) {
  if (const Buckets* const buckets = dataset.buckets()) {
    const BatchSpan all = {.position = 0, .batch = options.global_batch};
    const std::span<const BatchSpan> spans =
        options.spans.empty() ? std::span(&all, 1) : std::span(options.spans);
    CHECK_EQ(spans.back().batch, options.global_batch);
    bucket_order_.emplace(options.seed, *buckets, spans);
    next_position_ = bucket_order_->start();
    for (const PictureSize& size : buckets->sizes) {
      fields_.push_back(FieldsAt(options.fields, size));
    }
  } else {
    CHECK(options.turns.empty());
    fields_.push_back(options.fields);
  }
  CHECK(options.first >= 0 && options.count >= 0 &&
        options.first + options.count <= options.global_batch)
      << options.first << " + " << options.count << " of "
      << options.global_batch;
  CHECK(options.threads >= 1 && options.prefetch >= 1);
  for (int i = 0; i < options.threads; ++i) {
    threads_.emplace_back([this] { Work(); });
  }
}

DataLoader::~DataLoader() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  if (unreadable_.size() > kNamed) {
    LOG(WARNING) << unreadable_.size() << " of " << dataset_.size()
                 << " samples could not be read and were skipped";
  }
}

absl::StatusOr<LoadedBatch> DataLoader::Next() {
  std::unique_lock lock(mutex_);
  if (pending_.empty()) pending_.push_back(NewPending());
  work_.notify_all();
  const std::shared_ptr<Pending> front = pending_.front();
  finished_.wait(lock, [&] { return front->done == options_.count; });
  pending_.pop_front();
  lock.unlock();
  work_.notify_all();
  RETURN_IF_ERROR(front->status);
  // Some may have become known as unreadable since they were read.
  RETURN_IF_ERROR(Refresh(front->batch));
  return std::move(front->batch);
}

void DataLoader::Seek(uint64_t position) {
  CHECK(!bucket_order_.has_value() ||
        (position >= bucket_order_->start() &&
         (position - bucket_order_->start()) %
                 static_cast<uint64_t>(options_.global_batch) ==
             0))
      << position;
  {
    const std::lock_guard lock(mutex_);
    pending_.clear();
    next_position_ = position;
  }
  work_.notify_all();
}

std::vector<int64_t> DataLoader::TakeUnreadable() {
  const std::lock_guard lock(mutex_);
  return std::exchange(found_, {});
}

absl::Status DataLoader::Replace(std::span<const int64_t> unreadable,
                                 LoadedBatch& batch) {
  {
    const std::lock_guard lock(mutex_);
    unreadable_.insert(unreadable.begin(), unreadable.end());
  }
  return Refresh(batch);
}

absl::Status DataLoader::Refresh(LoadedBatch& batch) {
  for (int64_t i = 0; i < options_.count; ++i) {
    if (KnownUnreadable(batch.indices[i])) RETURN_IF_ERROR(Fill(batch, i));
  }
  return absl::OkStatus();
}

int64_t DataLoader::skipped() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(unreadable_.size());
}

void DataLoader::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    int64_t element = 0;
    std::shared_ptr<Pending> pending;
    work_.wait(lock, [&] {
      return stopping_ || (pending = Claim(element)) != nullptr;
    });
    if (stopping_) return;
    lock.unlock();
    absl::Status status = Fill(pending->batch, element);
    lock.lock();
    pending->status.Update(status);
    if (++pending->done == options_.count) finished_.notify_all();
  }
}

std::shared_ptr<DataLoader::Pending> DataLoader::Claim(int64_t& element) {
  for (const std::shared_ptr<Pending>& pending : pending_) {
    if (pending->claimed < options_.count) {
      element = pending->claimed++;
      return pending;
    }
  }
  if (options_.count == 0 ||
      pending_.size() >= static_cast<size_t>(options_.prefetch)) {
    return nullptr;
  }
  pending_.push_back(NewPending());
  element = pending_.back()->claimed++;
  return pending_.back();
}

std::shared_ptr<DataLoader::Pending> DataLoader::NewPending() {
  auto pending = std::make_shared<Pending>();
  LoadedBatch& batch = pending->batch;
  const uint64_t position = bucket_order_.has_value()
                                ? TakeBucket(next_position_, batch)
                                : next_position_;
  for (int64_t i = 0; i < options_.count; ++i) {
    batch.positions.push_back(position + options_.first + i);
  }
  next_position_ += options_.global_batch;
  batch.indices.resize(options_.count);
  for (const FieldSpec& spec : fields_[batch.bucket]) {
    batch.fields.push_back(ZeroValues(spec, options_.count));
  }
  return pending;
}

uint64_t DataLoader::TakeBucket(uint64_t position, LoadedBatch& batch) const {
  const uint64_t number = (position - bucket_order_->start()) /
                          static_cast<uint64_t>(options_.global_batch);
  if (options_.turns.empty()) {
    const BucketOrder::Batch next = bucket_order_->At(number);
    batch.bucket = next.bucket;
    batch.first_place = next.first;
    return position;
  }
  const BucketTurn& turn = options_.turns[number % options_.turns.size()];
  batch.bucket = turn.bucket;
  batch.first_place = turn.place;
  return turn.position;
}

int64_t DataLoader::IndexOf(const LoadedBatch& batch, int64_t element,
                            int64_t attempt) const {
  if (!bucket_order_.has_value()) {
    return order_.Replacement(batch.positions[element], attempt);
  }
  return bucket_order_->Index(
      batch.bucket, batch.first_place + options_.first + element, attempt);
}

int64_t DataLoader::Attempts(const LoadedBatch& batch) const {
  return bucket_order_.has_value() ? bucket_order_->Attempts(batch.bucket)
                                   : dataset_.size();
}

absl::Status DataLoader::Fill(LoadedBatch& batch, int64_t element) {
  for (int64_t attempt = 0; attempt < Attempts(batch); ++attempt) {
    const int64_t index = IndexOf(batch, element, attempt);
    if (KnownUnreadable(index)) continue;
    absl::Status job_error;
    const absl::Status status = FillFrom(index, batch, element, job_error);
    RETURN_IF_ERROR(job_error);
    if (status.ok()) {
      batch.indices[element] = index;
      return status;
    }
    RecordUnreadable(index, status);
    const std::lock_guard lock(mutex_);
    if (stopping_) return absl::CancelledError("the loader is closing");
  }
  const std::lock_guard lock(mutex_);
  return NotFound("none of the {} samples{} can be read; the first error: {}",
                  Attempts(batch),
                  bucket_order_.has_value() ? " of a bucket" : "",
                  MessageOf(first_error_));
}

absl::Status DataLoader::FillFrom(int64_t index, LoadedBatch& batch,
                                  int64_t element,
                                  absl::Status& job_error) const {
  if (options_.fields.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(Sample sample, dataset_.ReadParts(index, parts_));
  // Of another step, where a sample comes again, another draw; steps count
  // from 1 for what objectives draw.
  sample.draw = {.seed = options_.seed,
                 .sample = batch.positions[element],
                 .purpose = RandomPurpose::kNoise};
  const int64_t classes = dataset_.num_classes();
  if (sample.class_id < -1 || (classes > 0 && sample.class_id >= classes)) {
    return InvalidArgument("{}: class {}, expected 0 to {}", sample.key,
                           sample.class_id, classes - 1);
  }
  const std::vector<FieldSpec>& fields = fields_[batch.bucket];
  for (size_t f = 0; f < fields.size(); ++f) {
    job_error.Update(
        ReaderOf(fields[f]).read(sample, fields[f], element, batch.fields[f]));
  }
  DropEncoders(options_.drops, options_.seed, batch.positions[element], fields,
               element, batch.fields);
  return absl::OkStatus();
}

bool DataLoader::KnownUnreadable(int64_t index) const {
  const std::lock_guard lock(mutex_);
  return unreadable_.contains(index);
}

void DataLoader::RecordUnreadable(int64_t index, const absl::Status& error) {
  const std::lock_guard lock(mutex_);
  if (!unreadable_.insert(index).second) return;
  found_.push_back(index);
  if (first_error_.ok()) first_error_ = error;
  const size_t count = unreadable_.size();
  if (count <= kNamed) {
    LOG(WARNING) << "skipping an unreadable sample: " << MessageOf(error);
  } else if (IsPowerOfTen(count)) {
    LOG(WARNING) << count << " unreadable samples skipped so far, lastly: "
                 << MessageOf(error);
  }
}

}  // namespace trireme
