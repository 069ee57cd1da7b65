#include "models/data/loader.h"

#include <algorithm>
#include <utility>

#include "models/image/resize.h"
#include "models/image/transform.h"
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
      order_(options.seed, dataset.size()) {
  CHECK(options.first >= 0 && options.count >= 0 &&
        options.first + options.count <= options.global_batch)
      << options.first << " + " << options.count << " of "
      << options.global_batch;
  CHECK_GT(options.resolution, 0);
  CHECK(options.channels == 1 || options.channels == 3) << options.channels;
  CHECK(options.text_tokens >= 0 && options.text_width >= 0);
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

absl::StatusOr<Batch> DataLoader::Next() {
  std::unique_lock lock(mutex_);
  if (pending_.empty()) pending_.push_back(NewPending(next_step_++));
  work_.notify_all();
  const std::shared_ptr<Pending> front = pending_.front();
  finished_.wait(lock, [&] { return front->done == options_.count; });
  pending_.pop_front();
  lock.unlock();
  work_.notify_all();
  if (!front->status.ok()) return front->status;
  return std::move(front->batch);
}

void DataLoader::SeekStep(int64_t step) {
  CHECK_GE(step, 1);
  {
    const std::lock_guard lock(mutex_);
    pending_.clear();
    next_step_ = step;
  }
  work_.notify_all();
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
  pending_.push_back(NewPending(next_step_++));
  element = pending_.back()->claimed++;
  return pending_.back();
}

std::shared_ptr<DataLoader::Pending> DataLoader::NewPending(
    int64_t step) const {
  auto pending = std::make_shared<Pending>();
  Batch& batch = pending->batch;
  batch.step = step;
  const auto n = static_cast<size_t>(options_.count);
  const size_t side = options_.resolution;
  batch.sample_indices.resize(n);
  for (size_t i = 0; i < n; ++i) {
    batch.sample_indices[i] =
        static_cast<uint64_t>(step - 1) * options_.global_batch +
        options_.first + i;
  }
  batch.pixels.resize(n * options_.channels * side * side);
  batch.labels.resize(n);
  batch.text.resize(n * options_.text_tokens * options_.text_width);
  batch.text_counts.resize(n);
  return pending;
}

absl::Status DataLoader::Fill(Batch& batch, int64_t element) {
  const uint64_t position = batch.sample_indices[element];
  for (int64_t attempt = 0; attempt < dataset_.size(); ++attempt) {
    const int64_t index = order_.Replacement(position, attempt);
    if (KnownUnreadable(index)) continue;
    absl::StatusOr<Sample> sample = dataset_.Read(index);
    const absl::Status status =
        sample.ok() ? FillFrom(*sample, batch, element) : sample.status();
    if (status.ok()) return status;
    RecordUnreadable(index, status);
    const std::lock_guard lock(mutex_);
    if (stopping_) return absl::CancelledError("the loader is closing");
  }
  const std::lock_guard lock(mutex_);
  return NotFound("none of the {} samples can be read; the first error: {}",
                  dataset_.size(), MessageOf(first_error_));
}

absl::Status DataLoader::FillFrom(Sample& sample, Batch& batch,
                                  int64_t element) const {
  const int64_t classes = dataset_.num_classes();
  if (sample.class_id < -1 || (classes > 0 && sample.class_id >= classes)) {
    return InvalidArgument("{}: class {}, expected 0 to {}", sample.key,
                           sample.class_id, classes - 1);
  }
  if (options_.text_tokens > 0 && sample.text_count > 0) {
    if (sample.text_width != options_.text_width) {
      return InvalidArgument("{}: text states of width {}, expected {}",
                             sample.key, sample.text_width,
                             options_.text_width);
    }
    const int count = std::min(sample.text_count, options_.text_tokens);
    std::copy_n(sample.text_tokens.begin(),
                static_cast<size_t>(count) * options_.text_width,
                batch.text.begin() +
                    element * options_.text_tokens * options_.text_width);
    batch.text_counts[element] = count;
  }
  Image& image = sample.image;
  // Gray before scaling: a third of the work.
  if (options_.channels == 1) image = WithChannels(image, 1);
  image = WithChannels(
      ResizeAndCrop(image, options_.resolution, options_.resolution),
      options_.channels);
  const size_t size = image.pixels.size();
  ToFloat(image, std::span(batch.pixels).subspan(element * size, size));
  batch.labels[element] = sample.class_id;
  return absl::OkStatus();
}

bool DataLoader::KnownUnreadable(int64_t index) const {
  const std::lock_guard lock(mutex_);
  return unreadable_.contains(index);
}

void DataLoader::RecordUnreadable(int64_t index, const absl::Status& error) {
  const std::lock_guard lock(mutex_);
  if (!unreadable_.insert(index).second) return;
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
